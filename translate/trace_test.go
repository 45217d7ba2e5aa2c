package translate

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tougw/tougw/homa"
)

// TestRecordsJoin finds one request at both gateways by one id.
func TestRecordsJoin(t *testing.T) {
	f := newFabric(t, nil, homa.Config{})
	_, server := newRedis(t)
	tracer := NewTracer(TracerConfig{})
	sub, err := tracer.Subscribe(Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	rule := framingOf(t, respConfig)
	var mu sync.Mutex
	var logged []Record
	rule.AccessLog = func(r *Record) {
		mu.Lock()
		defer mu.Unlock()
		logged = append(logged, *r)
	}
	f.reverse(t, rule, tracer, server)
	_, addr := f.forward(t, rule, tracer)
	conn := dial(t, addr)
	value := string(text(100_000))
	write(t, conn, command("SET", "a", value))
	expect(t, conn, "+OK\r\n")
	write(t, conn, command("GET", "a"))
	expect(t, conn, fmt.Sprintf("$100000\r\n%s\r\n", value))
	byID := map[string][]Record{}
	for range 4 {
		r := <-sub.C
		byID[r.ID] = append(byID[r.ID], r)
	}
	if len(byID) != 2 {
		t.Fatalf("%d ids", len(byID))
	}
	for id, two := range byID {
		if len(id) != 16 || len(two) != 2 || two[0].Direction == two[1].Direction {
			t.Errorf("id %q: %+v", id, two)
			continue
		}
		tcp, hm := two[0], two[1]
		if tcp.Direction == "homa-tcp" {
			tcp, hm = hm, tcp
		}
		if tcp.Client != addrPort(conn.LocalAddr()) || tcp.Server != serverHost || hm.Server != server || hm.Client.Addr() != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("addresses: %+v, %+v", tcp, hm)
		}
		if tcp.Name != hm.Name || tcp.RequestBytes != hm.RequestBytes || tcp.ResponseBytes != hm.ResponseBytes || tcp.RequestBytes+tcp.ResponseBytes < 100_000 {
			t.Errorf("messages: %+v, %+v", tcp, hm)
		}
		if tcp.Name == "SET" && (tcp.GrantsReceived == 0 || hm.GrantsSent == 0) || tcp.Name == "GET" && tcp.GrantsSent == 0 {
			t.Errorf("grants: %+v, %+v", tcp, hm)
		}
		for _, r := range two {
			if r.Result != OK || r.Rule != "test" || r.Framing != "resp" || r.Total <= 0 || r.Queue < 0 || r.Service < 0 || r.Transport < 0 ||
				r.Queue+r.Service+r.Transport != r.Total || r.Time.IsZero() {
				t.Errorf("%+v", r)
			}
		}
		if hm.Total > tcp.Total+time.Second {
			t.Errorf("%v at the server's side, %v in all", hm.Total, tcp.Total)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(logged) != 4 {
		t.Errorf("%d lines of the access log", len(logged))
	}
	if b, err := json.Marshal(logged[0]); err != nil || len(b) < 100 {
		t.Errorf("%s, %v", b, err)
	}
}

func TestFilter(t *testing.T) {
	r := Record{
		ID: "2", Rule: "kv", Client: netip.MustParseAddrPort("10.0.0.1:5"), Server: netip.MustParseAddrPort("[::ffff:10.0.0.2]:6"),
		Total: time.Second, Result: Timeout,
	}
	for _, c := range []struct {
		filter Filter
		want   bool
	}{
		{Filter{}, true},
		{Filter{Addr: netip.MustParseAddrPort("10.0.0.1:0")}, true},
		{Filter{Addr: netip.MustParseAddrPort("10.0.0.2:6")}, true},
		{Filter{Addr: netip.MustParseAddrPort("10.0.0.2:5")}, false},
		{Filter{Addr: netip.MustParseAddrPort("10.0.0.3:0")}, false},
		{Filter{Prefix: netip.MustParsePrefix("10.0.0.0/31")}, true},
		{Filter{Prefix: netip.MustParsePrefix("10.0.0.2/32")}, true},
		{Filter{Prefix: netip.MustParsePrefix("10.1.0.0/16")}, false},
		{Filter{Rule: "kv", ID: "2", MinTotal: time.Second, Failed: true, Result: Timeout}, true},
		{Filter{Rule: "other"}, false},
		{Filter{ID: "3"}, false},
		{Filter{MinTotal: time.Second + 1}, false},
		{Filter{Result: Aborted}, false},
	} {
		if got := c.filter.matches(&r); got != c.want {
			t.Errorf("%+v: %v", c.filter, got)
		}
	}
	r.Result = OK
	if f := (Filter{Failed: true}); f.matches(&r) {
		t.Error("a success has failed")
	}
}

// TestTracerKeeps the slowest of some time, and the last failures.
func TestTracerKeeps(t *testing.T) {
	tracer := NewTracer(TracerConfig{Slowest: 3, Failed: 2, SlowAge: time.Minute})
	rule := tracer.of("kv")
	start := time.Unix(1000, 0)
	add := func(at, total time.Duration, result Result) {
		r := &Record{ID: fmt.Sprint(total), Time: start.Add(at - total), Total: total, Result: result}
		if rule.wants(total, result, start.Add(at)) {
			rule.add(r)
		}
	}
	has := func(want ...time.Duration) {
		t.Helper()
		got := map[string]bool{}
		for _, r := range tracer.Last(Filter{}) {
			got[r.ID] = true
		}
		for _, w := range want {
			if !got[fmt.Sprint(w)] {
				t.Errorf("%v is not kept: %v", w, got)
			}
		}
		if len(got) != len(want) {
			t.Errorf("kept %v, want %v", got, want)
		}
	}
	for i := range 9 {
		add(time.Duration(i), time.Duration(i+1), OK)
	}
	has(7, 8, 9)
	add(10, 5, OK)
	has(7, 8, 9)
	for i := range 4 {
		add(time.Duration(20+i), time.Duration(i+1), Timeout)
	}
	has(3, 4, 7, 8, 9)
	add(2*time.Minute, 2, OK)
	has(2, 3, 4)
	if got := tracer.Last(Filter{Failed: true}); len(got) != 2 || got[0].Time.Before(got[1].Time) {
		t.Errorf("%+v", got)
	}
}

// TestTracerKeepsApart what rules and clients do from the failures that somebody will
// look for.
func TestTracerKeepsApart(t *testing.T) {
	tracer := NewTracer(TracerConfig{})
	start := time.Unix(1000, 0)
	add := func(rule string, total time.Duration, result Result) {
		tracer.of(rule).add(&Record{Rule: rule, Time: start, Total: total, Result: result})
	}
	add("kv", time.Millisecond, OK)
	add("kv", time.Millisecond, Timeout)
	for range 1000 {
		for _, result := range []Result{Malformed, TooLarge, Truncated, Unsupported, Aborted} {
			add("kv", time.Second, result)
		}
		for _, result := range []Result{OK, BadResponse, Unreachable, Timeout, Overloaded} {
			add("shell", time.Hour, result)
		}
	}
	for _, result := range []Result{OK, Timeout} {
		if n := len(tracer.Last(Filter{Rule: "kv", Result: result})); n != 1 {
			t.Errorf("%d of kv with %s", n, result)
		}
	}
	// All of it is bounded.
	if kv, all := len(tracer.Last(Filter{Rule: "kv"})), len(tracer.Last(Filter{})); kv != 2+defaultKept || all != kv+2*defaultKept {
		t.Errorf("%d of kv, %d in all", kv, all)
	}
}

// TestSubscriptions are bounded, each in number of records.
func TestSubscriptions(t *testing.T) {
	tracer := NewTracer(TracerConfig{Subscriptions: 2, Queue: 3})
	slow, err := tracer.Subscribe(Filter{MinTotal: 2})
	if err != nil {
		t.Fatal(err)
	}
	other, err := tracer.Subscribe(Filter{Failed: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tracer.Subscribe(Filter{}); err != ErrSubscriptions {
		t.Errorf("a third one: %v", err)
	}
	for i := range 10 {
		tracer.of("kv").add(&Record{Total: time.Duration(i), Result: OK})
	}
	if len(slow.C) != 3 || slow.Dropped() != 5 || len(other.C) != 0 {
		t.Errorf("%d wait, %d dropped, %d at the other", len(slow.C), slow.Dropped(), len(other.C))
	}
	other.Close()
	other.Close()
	if _, ok := <-other.C; ok {
		t.Error("it goes on")
	}
	slow.Close()
	var none *Tracer
	none.of("kv").add(&Record{})
	if none.of("kv").wants(1, Timeout, time.Now()) {
		t.Error("no tracer wants something")
	}
}

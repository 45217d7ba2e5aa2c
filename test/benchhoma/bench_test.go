package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMeasure takes every contender through every row, too briefly for figures.
func TestMeasure(t *testing.T) {
	testnet.Require(t)
	for _, c := range []struct {
		rows     string
		duration time.Duration
		want     int
	}{{"^100 B", 200 * time.Millisecond, 2*2 + 2*4}, {"^500 KB, one", time.Second, 2}} {
		o := &options{duration: c.duration, rate: 300_000_000, queue: 128 << 10, rows: regexp.MustCompile(c.rows)}
		results, err := measure(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != c.want {
			t.Errorf("%s: %d results, want %d", c.rows, len(results), c.want)
		}
		for _, r := range results {
			switch {
			case r.Missing != "":
				if r.Transport == "Homa" || r.Transport == "TCP cubic" {
					t.Errorf("%s, %s: %s", r.Row, r.Transport, r.Missing)
				}
			case r.P50 <= 0 || r.P99 < r.P50 || r.Calls <= 0:
				t.Errorf("%+v", r)
			case strings.Contains(r.Row, "beside") != (r.LongBits > 0):
				t.Errorf("%+v", r)
			}
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	err := writeText(&b, []result{
		{Row: "a", Transport: "Homa", P50: 12.34, P99: 12345, Calls: 1000.4, Bits: 2.5e6},
		{Row: "a", Transport: "TCP", Missing: "not in this kernel"},
		{Row: "b", Transport: "Homa", P50: 1, P99: 2, LongBits: 1e8, Failed: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"", "a p50 p99 calls/s throughput long messages failed",
		"Homa 12.3 us 12.3 ms 1000 2.5 Mbit/s - 0", "TCP not in this kernel",
		"", "b p50 p99 calls/s throughput long messages failed",
		"Homa 1.0 us 2.0 us 0 - 100.0 Mbit/s 3",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// TestGoal compares what was measured with what is wanted.
func TestGoal(t *testing.T) {
	homa := result{Row: rowBeside, Transport: nameHoma, P99: 1000}
	for _, c := range []struct {
		results []result
		want    string
	}{
		{[]result{homa, {Row: rowBeside, Transport: nameTCP, P99: 7000}}, "at least 7: 7.00, met"},
		{[]result{homa, {Row: rowBeside, Transport: nameTCP, P99: 6990}}, "at least 7: 6.99, NOT MET"},
		{[]result{homa, {Row: rowBeside, Transport: nameTCP, Missing: "not in this kernel"}}, ""},
		{[]result{homa, {Row: "100 B, shaped link, idle", Transport: nameTCP, P99: 9000}}, ""},
		{nil, ""},
	} {
		var b bytes.Buffer
		if err := writeText(&b, c.results); err != nil {
			t.Fatal(err)
		}
		goal := "\n" + rowBeside + ": p99 by TCP cubic / by Homa, " + c.want + "\n"
		if got := b.String(); c.want != "" && !strings.HasSuffix(got, goal) || c.want == "" && strings.Contains(got, "at least") {
			t.Errorf("want %q at the end of\n%s", c.want, got)
		}
	}
}

func TestMessages(t *testing.T) {
	var b bytes.Buffer
	for _, text := range []string{"", "hello"} {
		if err := writeMessage(&b, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := readMessage(&b, make([]byte, 5))
		if err != nil || string(got) != text {
			t.Errorf("%q came back as %q, %v", text, got, err)
		}
	}
	if _, err := readMessage(strings.NewReader("\x00\x00\x00\x06hello!"), make([]byte, 5)); err == nil {
		t.Error("a message longer than the buffer was taken")
	}
}

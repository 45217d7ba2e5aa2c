package admin

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

var epoch = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// full is a status with everything in it.
func full() Status {
	return Status{
		Name: "laptop-7", Version: "v1.2.3", Instance: "0a1b2c3d", PID: 4242, Started: epoch, UptimeS: 93784.5, Draining: true,
		Tun: &Tun{
			Name: "tou0", Backend: "water", MTU: 1500, Queues: 1, Fallback: "netlink: no such device", Routes: []string{"198.51.100.0/24", "::/0"},
		},
		Sockets: []Socket{
			{Address: "0.0.0.0:443", Role: "listen", GSO: true, GRO: true, Steering: true, RecvBuffer: 32 << 20, SendBuffer: 32 << 20},
			{Address: "0.0.0.0:40001", Role: "edge", RecvBuffer: 212992, SendBuffer: 212992, Fallback: "GSO: refused by the kernel"},
		},
		Peers: []Peer{
			{
				Name: "edge", State: "up", Dialled: true, Identity: "certificate edge", Endpoint: "203.0.113.7:443", PathMTU: 1400, RTTMs: 12.345,
				Sessions: 3, BytesIn: 5 << 30, BytesOut: 1023, LastHandshake: epoch.Add(26*time.Hour + 3*time.Minute),
			},
			{Name: "spare", State: "waiting", Dialled: true, Endpoints: []string{"192.0.2.9:443", "[2001:db8::9]:443"}, Error: "handshake: no answer"},
		},
		Flows: FlowCounts{Active: 2, Opening: 1, Opened: 70, Failed: 4, Closed: 68}, Sessions: 9,
		Homa: &Homa{
			Calls: 2, Served: 1, Peers: 3, CallsTotal: 1000, CallsFailed: 4, ServedTotal: 50, ServedFailed: 1, Timeouts: 3,
			BytesSent: 1 << 20, BytesReceived: 3 << 20, BytesResent: 1500, Fallback: "receive buffer: 208 KiB",
		},
		Translations: []Translation{
			{
				Name: "kv", Direction: "tcp-homa", Framing: "length-prefixed", From: "tcp 0.0.0.0:7000", To: "homa 10.1.0.5:4000", Via: "edge",
				Connections: 3, ConnectionsTotal: 9, ConnectionsRefused: 1, ConnectionsWaiting: 1, ConnectionsWaited: 12, Outstanding: 5, Waiting: 2, Requests: 1000,
				Failed: map[string]uint64{"timeout": 3, "unreachable": 1, "too_large": 0}, BytesIn: 1 << 20, BytesOut: 2 << 20,
			},
			{
				Name: "legacy", Direction: "homa-tcp", Framing: "resp", From: "homa :4100", To: "tcp 127.0.0.1:6379,127.0.0.1:6380",
				Connections: 1, Requests: 50, Servers: []TranslationServer{
					{Address: "127.0.0.1:6379", Up: true, Connections: 1, Dials: 1}, {Address: "127.0.0.1:6380", Dials: 7, DialFailures: 7},
				},
			},
			{
				Name: "accept[0]", Direction: "relay", From: "peer branch", To: "homa 10.1.0.5/32 port 4000",
				Outstanding: 1, Requests: 7, BytesIn: 700, BytesOut: 1 << 20,
			},
		},
		Drops: []Drop{{"dtls", "replay", 3}, {"flow", "refused", 0}, {"tunnel", "queue_full", 18446744073709551615}},
	}
}

// golden compares what write writes with a file of testdata.
func golden(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	var b strings.Builder
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s: got\n%swant\n%s(-update writes it)", name, b.String(), want)
	}
}

func TestStatusText(t *testing.T) {
	s := full()
	golden(t, "status.txt", s.WriteText)
	golden(t, "status-empty.txt", (&Status{Name: "edge", Version: "dev", Instance: "00000000", PID: 1}).WriteText)
}

func TestFlowsText(t *testing.T) {
	golden(t, "flows.txt", func(w io.Writer) error {
		return WriteFlows(w, []Flow{
			{
				ID: 1, Direction: "outbound", Peer: "edge", Src: "10.77.0.7:40000", Dst: "198.51.100.9:443", State: "open", AgeS: 0.25,
				BytesUp: 1 << 10, BytesDown: 3 << 20,
			},
			{ID: 22, Direction: "inbound", Peer: "laptop-1", Src: "[2001:db8::1]:5", Dst: "[2001:db8::2]:6", State: "half-closed-a", AgeS: 61},
			{ID: 333, Direction: "direct", Src: "10.77.0.7:1", Dst: "192.0.2.1:25", State: "resetting", AgeS: 300000, BytesUp: 7 << 50},
		})
	})
	golden(t, "flows-empty.txt", func(w io.Writer) error { return WriteFlows(w, nil) })
}

func TestFormat(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 1<<30 - 1: "1.0 GiB", 1 << 40: "1.0 TiB",
		1 << 50: "1.0 PiB", 1<<64 - 1: "16384.0 PiB",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 1500 * time.Microsecond: "2ms", 59949 * time.Millisecond: "59.9s", 61 * time.Second: "1m1s", 47 * time.Hour: "47h0m0s",
		50*time.Hour + 29*time.Second: "2d2h0m", 71*time.Hour + 59*time.Minute + 31*time.Second: "3d0h0m",
	} {
		if got := formatAge(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// failing takes n bytes and then fails.
type failing struct{ n int }

var errFull = errors.New("full")

func (f *failing) Write(b []byte) (int, error) {
	if len(b) > f.n {
		return 0, errFull
	}
	f.n -= len(b)
	return len(b), nil
}

func TestWriteErrorsAreReported(t *testing.T) {
	s := full()
	var b strings.Builder
	if err := s.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for n := range b.Len() {
		if err := s.WriteText(&failing{n}); !errors.Is(err, errFull) {
			t.Fatalf("status on a device with %d bytes left: %v", n, err)
		}
	}
	if err := WriteFlows(&failing{5}, nil); !errors.Is(err, errFull) {
		t.Errorf("flows: %v", err)
	}
}

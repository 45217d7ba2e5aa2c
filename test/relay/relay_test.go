package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a client and a server with a relay between them.
func pair(t *testing.T) (r *Relay, client net.Conn, server net.PacketConn) {
	t.Helper()
	listen := func() net.PacketConn {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	server = listen()
	target := server.LocalAddr().String()
	r = New(1, listen(), func() (net.Conn, error) { return net.Dial("udp", target) })
	client, err := net.Dial("udp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, client, server
}

// exchange sends count numbered datagrams, a few at a time so that no socket
// buffer overflows, and returns the numbers that arrived, in order.
func exchange(t *testing.T, client net.Conn, server net.PacketConn, count int) (got []uint64) {
	t.Helper()
	var buf [2048]byte
	for i := range count {
		if _, err := client.Write(binary.BigEndian.AppendUint64(nil, uint64(i))); err != nil {
			t.Fatal(err)
		}
		if i%50 != 49 && i != count-1 {
			continue
		}
		for {
			_ = server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			n, _, err := server.ReadFrom(buf[:])
			if err != nil {
				break
			}
			got = append(got, binary.BigEndian.Uint64(buf[:n]))
		}
	}
	return got
}

func TestForwardsInOrderBothWays(t *testing.T) {
	r, client, server := pair(t)
	got := exchange(t, client, server, 100)
	for i, n := range got {
		if n != uint64(i) {
			t.Fatalf("datagram %d is number %d", i, n)
		}
	}
	if len(got) != 100 || r.Counts().Forwarded != 100 {
		t.Errorf("%d arrived, %+v", len(got), r.Counts())
	}
	if _, err := client.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	var buf [100]byte
	_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, from, err := server.ReadFrom(buf[:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.WriteTo([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := client.Read(buf[:])
	if err != nil || string(buf[:n]) != "answer" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults Faults
		check  func(Counts, []uint64) bool
	}{
		{"drop", Faults{Drop: 0.5}, func(c Counts, got []uint64) bool {
			return c.Dropped > 50 && c.Dropped < 150 && len(got) == 200-int(c.Dropped)
		}},
		{"flip", Faults{Flip: 1}, func(c Counts, got []uint64) bool {
			for i, n := range got {
				if n == uint64(i) {
					return false
				}
			}
			return c.Flipped == 200 && len(got) == 200
		}},
		{"forge", Faults{Forge: 1}, func(c Counts, got []uint64) bool { return c.Forged == 200 && len(got) == 400 }},
		{"replay", Faults{Replay: 1}, func(c Counts, got []uint64) bool { return c.Replayed == 199 && len(got) == 399 }},
		{"jitter", Faults{Jitter: 5 * time.Millisecond}, func(c Counts, got []uint64) bool {
			ordered := true
			for i, n := range got {
				ordered = ordered && n == uint64(i)
			}
			return len(got) == 200 && !ordered
		}},
		{"size", Faults{MaxSize: 7}, func(c Counts, got []uint64) bool { return len(got) == 0 && c.Dropped == 200 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, client, server := pair(t)
			r.Set(c.faults)
			got := exchange(t, client, server, 200)
			if !c.check(r.Counts(), got) {
				t.Errorf("%+v, %d arrived: %v", r.Counts(), len(got), got)
			}
		})
	}
}

func TestDelay(t *testing.T) {
	const delay = 30 * time.Millisecond
	r, client, server := pair(t)
	r.Set(Faults{Delay: delay})
	start := time.Now()
	if got := exchange(t, client, server, 1); len(got) != 1 {
		t.Fatalf("%v arrived", got)
	}
	if took := time.Since(start); took < delay {
		t.Errorf("arrived after %v, want at least %v", took, delay)
	}
}

func TestRebindChangesThePort(t *testing.T) {
	r, client, server := pair(t)
	seen := func() netip.AddrPort {
		t.Helper()
		if _, err := client.Write([]byte("here")); err != nil {
			t.Fatal(err)
		}
		var buf [100]byte
		_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, from, err := server.ReadFrom(buf[:])
		if err != nil {
			t.Fatal(err)
		}
		return from.(*net.UDPAddr).AddrPort()
	}
	first := seen()
	if again := seen(); again != first {
		t.Errorf("port changed without cause: %v, %v", first, again)
	}
	r.Rebind()
	if after := seen(); after == first {
		t.Errorf("still %v after Rebind", after)
	}
}

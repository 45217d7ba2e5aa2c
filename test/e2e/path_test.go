package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
	"github.com/tougw/tougw/test/relay"
	"github.com/tougw/tougw/test/wire"
)

// relayPort is where relays listen on the Internet.
const relayPort = 4433

// relayed puts a relay on the path: the client dials it, on the Internet
// router, and it passes on to the gateway.
func (w *world) relayed(seed uint64) *relay.Relay {
	w.t.Helper()
	front, err := w.Internet.ListenPacket("udp", w.relayAddr().String())
	w.must(err)
	r := relay.New(seed, front, func() (net.Conn, error) {
		return w.Internet.Dial(w.ctx, "udp", netip.AddrPortFrom(testnet.GatewayAddr, lab.Port).String())
	})
	w.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return r
}

func (w *world) relayAddr() netip.AddrPort {
	return netip.AddrPortFrom(w.Sites[0].Next, relayPort)
}

// throughRelay is a world with a relay on the path.
func throughRelay(t *testing.T, seed uint64) (*world, *relay.Relay) {
	t.Helper()
	w := newWorld(t, options{idle: true})
	r := w.relayed(seed)
	client := lab.ClientConfig("client")
	client.Peers[0].Endpoint = w.relayAddr()
	w.gateway = w.start(w.Gateway, lab.GatewayConfig())
	w.client = w.start(w.Sites[0].Gateway, client)
	w.up(w.client)
	return w, r
}

// transfer sends size bytes to the server and back again, and compares.
func (w *world) transfer(server netip.AddrPort, size int) error {
	data := content(10, size)
	c, err := w.dial(server)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	got, err := io.ReadAll(c)
	err = errors.Join(err, <-sent)
	if err == nil && sum(got) != sum(data) {
		err = fmt.Errorf("%d bytes came back, not as they were sent (%d)", len(got), len(data))
	}
	return err
}

// onlyHandshake returns when the client's association was made, for seeing
// that it is still the same.
func (w *world) onlyHandshake() time.Time {
	w.t.Helper()
	s, err := w.client.Status(w.ctx)
	w.must(err)
	return s.Peers[0].LastHandshake
}

// TestAttacksOnThePath: who can alter, repeat and invent datagrams can slow a
// tunnel down, not break or change it.
func TestAttacksOnThePath(t *testing.T) {
	w, r := throughRelay(t, 11)
	server := w.serve(testnet.ServerAddr, echo)
	made := w.onlyHandshake()
	for _, c := range []struct {
		name   string
		faults relay.Faults
		done   func(relay.Counts) uint64
		reason string // of the drops that the attack must lead to
	}{
		{"altered copies", relay.Faults{Forge: 0.5}, func(c relay.Counts) uint64 { return c.Forged }, ""},
		{"altered", relay.Faults{Flip: 0.01}, func(c relay.Counts) uint64 { return c.Flipped }, ""},
		{"replayed", relay.Faults{Replay: 0.5}, func(c relay.Counts) uint64 { return c.Replayed }, "replay"},
		{"reordered", relay.Faults{Jitter: 2 * time.Millisecond}, nil, ""},
		{"all of it, and far away", relay.Faults{Drop: 0.005, Flip: 0.005, Forge: 0.2, Replay: 0.2, Delay: 5 * time.Millisecond, Jitter: time.Millisecond},
			func(c relay.Counts) uint64 { return c.Forged + c.Replayed }, "replay"},
	} {
		w.run(c.name, func(w *world, t *testing.T) {
			dropped := func() (n uint64) {
				for _, d := range []*lab.Daemon{w.client, w.gateway} {
					k, err := d.Drops(w.ctx, c.reason)
					w.must(err)
					n += k
				}
				return n
			}
			before, drops := r.Counts(), dropped()
			r.Set(c.faults)
			err := w.transfer(server, 4<<20)
			r.Set(relay.Faults{})
			w.must(err)
			if c.done == nil {
				return
			}
			did := c.done(r.Counts()) - c.done(before)
			if did == 0 {
				t.Fatal("the relay did nothing")
			}
			// A flipped bit may be one of those that a length or a type is made
			// of; whatever it was, the record is dropped and counted.
			got := dropped() - drops
			t.Logf("%d attacks, %d drops", did, got)
			if got < did/2 {
				t.Errorf("%d attacks led to %d drops", did, got)
			}
		})
	}
	if now := w.onlyHandshake(); !now.Equal(made) {
		t.Errorf("the association of %v was replaced at %v", made, now)
	}
}

// TestGarbage: datagrams that no peer sent, at the port of the gateway.
func TestGarbage(t *testing.T) {
	w, r := throughRelay(t, 12)
	server := w.serve(testnet.ServerAddr, echo)
	c := w.mustDial(server)
	made := w.onlyHandshake()
	garbage := [][]byte{
		{}, {22}, []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 1200), content(13, 65000),
		// The start of a ClientHello with lengths that are not there.
		append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 0xff, 0xff, 0xff}, make([]byte, 100)...),
		// An alert and application data in plaintext.
		{21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 0},
		{23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4},
	}
	for i := range 200 {
		w.must(r.Inject(garbage[i%len(garbage)]))
		if i%10 == 0 {
			w.must(echoed(c, fmt.Sprint("message ", i)))
		}
	}
	if now := w.onlyHandshake(); !now.Equal(made) {
		t.Errorf("the association of %v was replaced at %v", made, now)
	}
}

// TestLoss: random loss on the Internet, for single datagrams.
func TestLoss(t *testing.T) {
	for _, c := range []struct {
		share float64
		size  int
	}{{0.01, 4 << 20}, {0.05, 1 << 20}} {
		t.Run(fmt.Sprintf("%.0f%%", c.share*100), func(t *testing.T) {
			w := newWorld(t, options{bulk: true})
			server := w.serve(testnet.ServerAddr, echo)
			w.must(errors.Join(
				w.Sites[0].Gateway.SetSegmentation("wan0", false),
				w.Gateway.SetSegmentation("wan0", false),
				w.Internet.Drop(c.share, ""),
			))
			start := time.Now()
			w.must(w.transfer(server, c.size))
			t.Logf("%d bytes there and back in %v", c.size, time.Since(start).Round(time.Millisecond))
			out, err := w.Internet.Run(w.ctx, "nft", "list", "ruleset")
			w.must(err)
			if strings.Contains(out, "packets 0 ") {
				t.Errorf("nothing was lost:\n%s", out)
			}
		})
	}
}

// TestOnlyDTLSOnThePath: everything that leaves a gateway for the Internet, in
// every phase of its life, is DTLS.
func TestOnlyDTLSOnThePath(t *testing.T) {
	w := newWorld(t, options{idle: true})
	capture, err := w.Internet.Capture(w.ctx, testnet.CaptureOptions{Link: "gw0", File: w.Path("path.pcap")})
	w.must(err)
	w.gateway = w.start(w.Gateway, lab.GatewayConfig())
	w.client = w.start(w.Sites[0].Gateway, lab.ClientConfig("client"))
	w.up(w.client)
	const canary = "the canary that nobody on the path may see"
	for _, addr := range []netip.Addr{testnet.ServerAddr, testnet.ServerAddr6} {
		w.must(echoed(w.mustDial(w.serve(addr, echo)), canary))
	}
	_, err = w.dial(netip.AddrPortFrom(testnet.ServerAddr, 9))
	if !refused(err) {
		t.Error(err)
	}
	w.must(w.client.Stop())
	w.must(w.gateway.Stop())
	_, missed, err := capture.Stop()
	w.must(err)
	if missed > 0 {
		t.Fatalf("the capture missed %d packets", missed)
	}
	report, err := wire.CheckFile(w.Path("path.pcap"), lab.Port, []byte(canary))
	w.must(err)
	w.must(report.Err())
}

package gateway

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/simnet"
)

// TestPeerMoves: a translator on the path forgets the client, whose datagrams
// then come from another address.
func TestPeerMoves(t *testing.T) {
	w := newWorld(t)
	client, edge := w.pair()
	c := client.dial(destAddr, serve(t, echo))
	if err := pingPong(c, "before"); err != nil {
		t.Fatal(err)
	}
	handshake := client.Status().Peers[0].LastHandshake
	at := netip.MustParseAddrPort(client.Status().Sockets[0].Address)
	for i, to := range []string{"192.0.2.77:9999", "192.0.2.78:1024", "192.0.2.78:1025"} {
		if err := w.net.Rebind(at, netip.MustParseAddrPort(to)); err != nil {
			t.Fatal(err)
		}
		at = netip.MustParseAddrPort(to)
		start := time.Now()
		if err := pingPong(c, "after"); err != nil {
			t.Fatalf("move %d: %v", i+1, err)
		}
		t.Logf("move %d: the flow went on after %v", i+1, time.Since(start).Round(time.Millisecond))
		eventually(t, "the edge follows", func() bool { return edge.Status().Peers[0].Endpoint == to })
	}
	if got := client.Status().Peers[0].LastHandshake; !got.Equal(handshake) {
		t.Error("there was a new handshake")
	}
	if n := edge.node.Stats().PathMoves; n != 3 {
		t.Errorf("%d moves counted", n)
	}
}

// TestRekeyUnderLoad: associations are replaced while flows run, and no byte of
// them is lost or waits.
func TestRekeyUnderLoad(t *testing.T) {
	w := newWorld(t)
	edge := w.start(edgeAddr, edgeYAML)
	client := w.start(clientAddr, strings.Replace(clientYAML("laptop-1"), "session_grace: 30s", "rekey_bytes: 1MiB", 1))
	w.waitUp(client)
	const size = 64 << 20
	w.net.SetDefault(simnet.Link{Rate: 200_000_000, Queue: 1 << 20}) // about three seconds
	c := client.dial(destAddr, serve(t, sendNoise(5, size)))
	first := client.Status().Peers[0].LastHandshake
	if err := download(c, 5, size); err != nil {
		t.Fatal(err)
	}
	if client.Status().Peers[0].LastHandshake.Equal(first) {
		t.Error("the association was never replaced")
	}
	n := edge.listen.endpoint.Stats().HandshakesCompleted
	t.Logf("%d associations for %d MiB", n, size>>20)
	if n < 3 {
		t.Errorf("%d associations, want 3 or more", n)
	}
}

package dtls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	pion "github.com/pion/dtls/v3"
)

// suiteCases are every suite with the credentials it needs.
type suiteCase struct {
	suite Suite
	rsa   bool
	psk   bool
}

var suiteCases = []suiteCase{
	{ECDHEECDSAWithAES128GCM, false, false},
	{ECDHEECDSAWithAES256GCM, false, false},
	{ECDHEECDSAWithChaCha20, false, false},
	{ECDHERSAWithAES128GCM, true, false},
	{ECDHERSAWithAES256GCM, true, false},
	{ECDHERSAWithChaCha20, true, false},
	{ECDHEPSKWithChaCha20, false, true},
}

// configure sets a world up for a case.
func (c suiteCase) configure(w *world) {
	if c.rsa {
		w.serverConfig.Certificate = w.ca.issue(w.t, "edge", true, nil)
	}
	w.clientConfig.Suites = []Suite{c.suite}
	if c.psk {
		w.dial = DialParams{PSK: &PreShared{Identity: "laptop", Key: testPSK}}
	}
}

// payloads are records of 1 to 1195 bytes.
func payloads(n int) [][]byte {
	r := rand.New(rand.NewPCG(3, uint64(n)))
	out := make([][]byte, n)
	for i := range out {
		b := make([]byte, 1+r.IntN(1195))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		out[i] = b
	}
	return out
}

func sameRecords(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("record %d differs: %d bytes, want %d", i, len(got[i]), len(want[i]))
		}
	}
}

func TestSuites(t *testing.T) {
	t.Parallel()
	for _, c := range suiteCases {
		for _, cid := range []string{"both", "none", "client only", "server only"} {
			t.Run(fmt.Sprintf("%v/cid=%s", c.suite, cid), func(t *testing.T) {
				w := newWorld(t, func(w *world) {
					c.configure(w)
					w.clientConfig.ConnectionID = cid == "both" || cid == "client only"
					w.serverConfig.ConnectionID = cid == "both" || cid == "server only"
				})
				cl, sv := w.pair()
				want := payloads(50)
				for _, p := range want {
					check(t, sendRecord(cl, p))
					check(t, sendRecord(sv, p))
				}
				eventually(t, "all records", func() bool {
					return len(w.serverEvents.received(sv)) == len(want) && len(w.clientEvents.received(cl)) == len(want)
				})
				sameRecords(t, w.serverEvents.received(sv), want)
				sameRecords(t, w.clientEvents.received(cl), want)
				ids := 0
				if cid == "both" {
					ids = cidLen
				}
				for _, a := range []*Association{cl, sv} {
					if i := a.Info(); i.Suite != c.suite || i.LocalCID != ids || i.RemoteCID != ids {
						t.Errorf("%+v", i)
					}
				}
				name, kind := "laptop-7", Certificate
				if c.psk {
					name, kind = "laptop", PSK
				}
				if id := sv.Identity(); id.Kind != kind || id.String() != name || !id.Has(name) {
					t.Errorf("server sees %v %v, want %v %v", id.Kind, id, kind, name)
				}
				check(t, cl.Close(nil))
				eventually(t, "end", func() bool { return w.serverEvents.reason(sv) != nil && w.clientEvents.reason(cl) != nil })
				if err := w.serverEvents.reason(sv); !errors.Is(err, ErrClosedByPeer) {
					t.Errorf("server's association ended with: %v", err)
				}
				if err := w.clientEvents.reason(cl); !errors.Is(err, ErrClosedLocally) {
					t.Errorf("client's association ended with: %v", err)
				}
			})
		}
	}
}

// library modes of Connection IDs of a peer.
var libraryCIDs = map[string]func() []byte{
	"none": nil, "both": pion.RandomCIDGenerator(cidLen), "longer": pion.RandomCIDGenerator(20), "send only": pion.OnlySendCIDGenerator(),
}

// exchange sends records between our association and the library's connection
// both ways, and closes from our side.
func exchange(t *testing.T, a *Association, ev *recorder, conn *pion.Conn) {
	t.Helper()
	want := payloads(200)
	read := make(chan error, 1)
	var got [][]byte
	var arrived atomic.Int32
	go func() {
		for {
			b := make([]byte, 2000)
			n, err := conn.Read(b)
			if err != nil {
				read <- err
				return
			}
			got = append(got, b[:n])
			arrived.Add(1)
		}
	}()
	for _, p := range want {
		check(t, sendRecord(a, p))
		_, err := conn.Write(p)
		check(t, err)
	}
	eventually(t, "the library's records", func() bool { return len(ev.received(a)) == len(want) })
	sameRecords(t, ev.received(a), want)
	// The library's Read may lose its last record to a close_notify.
	eventually(t, "our records", func() bool { return int(arrived.Load()) == len(want) })
	check(t, a.Close(nil))
	if err := <-read; !errors.Is(err, io.EOF) {
		t.Errorf("the library's Read ended with: %v", err)
	}
	sameRecords(t, got, want)
	eventually(t, "end", func() bool { return ev.reason(a) != nil })
}

func TestLibraryAsClient(t *testing.T) {
	t.Parallel()
	for _, c := range suiteCases {
		for cid, gen := range libraryCIDs {
			t.Run(fmt.Sprintf("%v/cid=%s", c.suite, cid), func(t *testing.T) {
				w := newWorld(t, c.configure)
				opts := []pion.ClientOption{
					pion.WithCipherSuites(pion.CipherSuiteID(c.suite)), pion.WithFlightInterval(50 * time.Millisecond),
					pion.WithConnectionIDGenerator(gen),
				}
				if gen == nil {
					opts = opts[:2]
				}
				if c.psk {
					opts = append(opts, pion.WithPSK(func([]byte) ([]byte, error) { return testPSK, nil }), pion.WithPSKIdentityHint([]byte("laptop")))
				} else {
					opts = append(opts, pion.WithCertificates(w.clientConfig.Certificate), pion.WithRootCAs(w.ca.pool), pion.WithServerName("edge"))
				}
				conn := w.libraryClient(opts...)
				eventually(t, "association", func() bool { return w.serverEvents.last() != nil })
				exchange(t, w.serverEvents.last(), w.serverEvents, conn)
			})
		}
	}
}

// libraryClient connects an unmodified client.
func (w *world) libraryClient(opts ...pion.ClientOption) *pion.Conn {
	w.t.Helper()
	conn, err := w.tryLibraryClient(opts...)
	check(w.t, err)
	return conn
}

func (w *world) tryLibraryClient(opts ...pion.ClientOption) (*pion.Conn, error) {
	sock := peerConn{w.net.socket(clientAddr)}
	conn, err := pion.ClientWithOptions(sock, peerConn{w.serverSock}.LocalAddr(), opts...)
	check(w.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err = conn.HandshakeContext(ctx)
	if err != nil {
		check(w.t, sock.Close())
		return nil, err
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn, nil
}

func TestLibraryAsServer(t *testing.T) {
	t.Parallel()
	for _, c := range suiteCases {
		for cid, gen := range libraryCIDs {
			t.Run(fmt.Sprintf("%v/cid=%s", c.suite, cid), func(t *testing.T) {
				w := newWorld(t, c.configure)
				opts := []pion.ServerOption{
					pion.WithCipherSuites(pion.CipherSuiteID(c.suite)), pion.WithFlightInterval(50 * time.Millisecond),
				}
				if gen != nil {
					opts = append(opts, pion.WithConnectionIDGenerator(gen))
				}
				if c.psk {
					opts = append(opts, pion.WithPSK(func([]byte) ([]byte, error) { return testPSK, nil }))
				} else {
					opts = append(opts, pion.WithCertificates(w.serverConfig.Certificate), pion.WithClientCAs(w.ca.pool), pion.WithClientAuth(pion.RequireAndVerifyClientCert))
				}
				const addr = "203.0.113.9:4433"
				sock := peerConn{w.net.socket(addr)}
				from := netip.MustParseAddrPort(clientAddr)
				conn, err := pion.ServerWithOptions(sock, peerConn{&memSock{addr: from}}.LocalAddr(), opts...)
				check(t, err)
				t.Cleanup(func() { _ = conn.Close() })
				hs := make(chan error, 1)
				go func() { hs <- conn.Handshake() }()
				a, err := w.client.Dial(context.Background(), w.net.socket(clientAddr), netip.MustParseAddrPort(addr), w.dial)
				check(t, err)
				check(t, <-hs)
				exchange(t, a, w.clientEvents, conn)
			})
		}
	}
}

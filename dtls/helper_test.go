package dtls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	serverAddr = "192.0.2.1:443"
	clientAddr = "198.51.100.7:5000"
)

// longAgo is before synctest's clock begins.
var longAgo = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// authority is a test CA.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
}

var serial = func() func() *big.Int {
	var mu sync.Mutex
	n := int64(0)
	return func() *big.Int { mu.Lock(); defer mu.Unlock(); n++; return big.NewInt(n) }
}()

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	c := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: longAgo, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// issue makes a certificate for name as DNS name; edit may change it.
func (a *authority) issue(t testing.TB, name string, useRSA bool, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	var key crypto.Signer
	var err error
	if useRSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	check(t, err)
	c := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: longAgo, NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if edit != nil {
		edit(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out waiting for: " + what)
		}
	}
}

// recorder is Events that keeps everything, and checks the order of calls.
type recorder struct {
	t    testing.TB
	echo bool

	mu          sync.Mutex
	established []*Association
	closed      map[*Association]error
	got         map[*Association][][]byte
	live        map[*Association]bool
	onReceive   func(a *Association, records [][]byte)
}

func newRecorder(t testing.TB) *recorder {
	return &recorder{t: t, closed: map[*Association]error{}, got: map[*Association][][]byte{}, live: map[*Association]bool{}}
}

func (r *recorder) NewReceiver() Receiver { return recReceiver{r} }

func (r *recorder) Established(a *Association) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.established = append(r.established, a)
	r.live[a] = true
}

func (r *recorder) Closed(a *Association, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.live[a] {
		r.t.Error("Closed for an association that is not established, or twice")
	}
	if err == nil {
		r.t.Error("Closed without a reason")
	}
	r.live[a] = false
	r.closed[a] = err
}

type recReceiver struct{ r *recorder }

func (rr recReceiver) Receive(a *Association, records [][]byte) {
	r := rr.r
	r.mu.Lock()
	if !r.live[a] {
		r.t.Error("Receive before Established or after Closed")
	}
	for _, b := range records {
		r.got[a] = append(r.got[a], slices.Clone(b))
	}
	f := r.onReceive
	r.mu.Unlock()
	if f != nil {
		f(a, records)
	}
	if r.echo {
		for _, b := range records {
			if err := sendRecord(a, b); err != nil {
				r.t.Errorf("echo: %v", err)
			}
		}
	}
}

func (recReceiver) Flush() {}

func (r *recorder) last() *Association {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.established) == 0 {
		return nil
	}
	return r.established[len(r.established)-1]
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.established)
}

func (r *recorder) received(a *Association) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got[a])
}

func (r *recorder) reason(a *Association) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed[a]
}

// sendRecord seals and sends one record.
func sendRecord(a *Association, plain []byte) error {
	head, tail := a.Overhead()
	b := make([]byte, head+len(plain)+tail)
	copy(b[head:], plain)
	n, err := a.Seal(b, len(plain))
	if err != nil {
		return err
	}
	return a.Send(b[:n], n)
}

// world is a server and a client endpoint on one memNet.
type world struct {
	t              testing.TB
	net            *memNet
	ca             *authority
	serverConfig   Config
	clientConfig   Config
	server, client *Endpoint
	serverEvents   *recorder
	clientEvents   *recorder
	serverEvent    Events // serverEvents unless set
	serverSock     *memSock
	dial           DialParams
	numbers        numbers
}

// numbers checks what is on the wire: no record number is used for two
// different records in one direction of one association.
type numbers struct {
	mu   sync.Mutex
	seen map[string][]byte
}

func (n *numbers) see(t testing.TB, from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen == nil {
		n.seen = map[string][]byte{}
	}
	for len(b) >= headerLen {
		h, l, drop := parseHeader(b)
		if drop != numDrops {
			return // another length of Connection ID
		}
		if h.epoch == 1 {
			key := fmt.Sprint(from, to, h.cid, h.seq)
			if old, ok := n.seen[key]; ok && !bytes.Equal(old, b[:l]) {
				t.Errorf("number %d from %v used for two records", h.seq, from)
			}
			n.seen[key] = b[:l]
		}
		b = b[l:]
	}
}

// forget is for tests that make another association on the same addresses.
func (n *numbers) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = nil
}

var testPSK = []byte("0123456789abcdef0123456789abcdef")

// newWorld prepares certificates and a PSK; start makes the endpoints.
func newWorld(t testing.TB, edit func(w *world)) *world {
	t.Helper()
	w := &world{t: t, net: newMemNet(), ca: newAuthority(t)}
	base := Config{
		Roots: w.ca.pool, ConnectionID: true,
		FlightInterval: 50 * time.Millisecond, HandshakeTimeout: 30 * time.Second, HelloTimeout: 30 * time.Second,
	}
	w.serverConfig, w.clientConfig = base, base
	w.serverConfig.Certificate = w.ca.issue(t, "edge", false, nil)
	w.serverConfig.LookupPSK = func(id string) ([]byte, bool) { return testPSK, id == "laptop" }
	w.clientConfig.Certificate = w.ca.issue(t, "Laptop-7", false, nil)
	w.dial = DialParams{ServerName: "edge"}
	w.serverEvents, w.clientEvents = newRecorder(t), newRecorder(t)
	w.net.tap = func(from, to netip.AddrPort, b []byte) { w.numbers.see(t, from, to, b) }
	if edit != nil {
		edit(w)
	}
	var err error
	if w.serverEvent == nil {
		w.serverEvent = w.serverEvents
	}
	w.server, err = New(w.serverConfig, w.serverEvent)
	check(t, err)
	w.client, err = New(w.clientConfig, w.clientEvents)
	check(t, err)
	w.serverSock = w.net.socket(serverAddr)
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(context.Background(), w.serverSock) }()
	t.Cleanup(func() {
		check(t, w.client.Close())
		check(t, w.server.Close())
		check(t, <-done)
		if n := w.server.Stats(); n.Associations != 0 || n.HalfOpen != 0 {
			t.Errorf("after Close: %d associations, %d half-open", n.Associations, n.HalfOpen)
		}
	})
	return w
}

func (w *world) connect(addr string) (*Association, error) {
	return w.client.Dial(context.Background(), w.net.socket(addr), netip.MustParseAddrPort(serverAddr), w.dial)
}

// pair connects and gives both ends.
func (w *world) pair() (client, server *Association) {
	w.t.Helper()
	n := w.serverEvents.count()
	c, err := w.connect(clientAddr)
	check(w.t, err)
	eventually(w.t, "server's association", func() bool { return w.serverEvents.count() > n })
	s := w.serverEvents.last()
	// Its handshake is over, and the way to it is found, when that is given up.
	s.mu.Lock()
	defer s.mu.Unlock()
	return c, s
}

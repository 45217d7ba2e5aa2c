package dtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	pion "github.com/pion/dtls/v3"
)

// TestRefused has a peer fail the authentication in every way there is: no
// association comes about, the client knows why, and the server counts it.
func TestRefused(t *testing.T) {
	clientOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	serverOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	future := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }
	cnOnly := func(c *x509.Certificate) { c.DNSNames = nil }
	wildcard := func(c *x509.Certificate) { c.DNSNames = []string{"*"} }
	client := func(f func(*x509.Certificate)) func(*world) {
		return func(w *world) { w.clientConfig.Certificate = w.ca.issue(w.t, "laptop-7", false, f) }
	}
	server := func(f func(*x509.Certificate)) func(*world) {
		return func(w *world) { w.serverConfig.Certificate = w.ca.issue(w.t, "edge", false, f) }
	}
	for _, c := range []struct {
		name      string
		edit      func(*world)
		clientWhy Failure
		alert     Alert  // the client's error is this alert from the server
		text      string // or contains this
		serverWhy Failure
	}{
		{"client certificate of another CA", func(w *world) {
			w.clientConfig.Certificate = newAuthority(w.t).issue(w.t, "laptop-7", false, nil)
		}, FailAlert, AlertUnknownCA, "", FailUnknownCA},
		{"client certificate expired", client(expired), FailAlert, AlertCertificateExpired, "", FailExpired},
		{"client certificate not yet valid", client(future), FailAlert, AlertCertificateExpired, "", FailExpired},
		{"client certificate only for servers", client(serverOnly), FailAlert, AlertUnsupportedCertificate, "", FailUsage},
		{"client certificate with CN only", client(cnOnly), FailAlert, AlertBadCertificate, "", FailNoName},
		{"client certificate with wildcard only", client(wildcard), FailAlert, AlertBadCertificate, "", FailNoName},
		{"server certificate of another CA", func(w *world) {
			w.serverConfig.Certificate = newAuthority(w.t).issue(w.t, "edge", false, nil)
		}, FailUnknownCA, 0, "unknown authority", FailAlert},
		{"server certificate expired", server(expired), FailExpired, 0, "expired", FailAlert},
		{"server certificate only for clients", server(clientOnly), FailUsage, 0, "usage", FailAlert},
		{"server certificate with CN only", server(cnOnly), FailName, 0, "use SANs instead", FailAlert},
		{"another server", func(w *world) { w.dial.ServerName = "core" }, FailName, 0, "not core", FailAlert},
		{"unknown PSK identity", func(w *world) { w.dial.PSK = &PreShared{"stranger", testPSK} }, FailAlert, AlertDecryptError, "", FailUnknownIdentity},
		{"wrong PSK", func(w *world) {
			w.dial.PSK = &PreShared{"laptop", []byte("another key of 32 bytes, really.")}
		}, FailAlert, AlertDecryptError, "", FailKey},
		{"no common suite", func(w *world) {
			w.clientConfig.Suites = []Suite{ECDHEECDSAWithAES128GCM}
			w.serverConfig.Suites = []Suite{ECDHEECDSAWithAES256GCM, ECDHEPSKWithChaCha20}
		}, FailAlert, AlertInsufficientSecurity, "", FailSuite},
		{"PSK not offered by the server", func(w *world) {
			w.serverConfig.LookupPSK = nil
			w.dial.PSK = &PreShared{"laptop", testPSK}
		}, FailAlert, AlertInsufficientSecurity, "", FailSuite},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var told []Failure
			toldCh := make(chan Failure, 4)
			w := newWorld(t, func(w *world) {
				c.edit(w)
				w.clientConfig.OnFailure = func(_ netip.AddrPort, f Failure, _ error) { told = append(told, f) }
				w.serverConfig.OnFailure = func(_ netip.AddrPort, f Failure, _ error) { toldCh <- f }
			})
			a, err := w.connect(clientAddr)
			if err == nil {
				t.Fatalf("association with %v", a.Identity())
			}
			var al *AlertError
			switch {
			case c.alert != 0 && (!errors.As(err, &al) || al.Alert != c.alert):
				t.Errorf("client's error: %v, want alert %v", err, c.alert)
			case !strings.Contains(err.Error(), c.text):
				t.Errorf("client's error: %v, want %q", err, c.text)
			}
			if len(told) != 1 || told[0] != c.clientWhy {
				t.Errorf("client told %v, want %v", told, c.clientWhy)
			}
			if got := <-toldCh; got != c.serverWhy {
				t.Errorf("server told %v, want %v", got, c.serverWhy)
			}
			if n := w.server.Stats().Failures[c.serverWhy]; n != 1 {
				t.Errorf("server counted %d of %v", n, c.serverWhy)
			}
			if w.serverEvents.count()+w.clientEvents.count() != 0 {
				t.Error("an association was established")
			}
			eventually(t, "no half-open handshake", func() bool { return w.server.Stats().HalfOpen == 0 })
		})
	}
}

// TestClientWithoutCertificate uses the library's client, because ours does not
// dial without credentials.
func TestClientWithoutCertificate(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.tryLibraryClient(pion.WithRootCAs(w.ca.pool), pion.WithServerName("edge"),
		pion.WithCipherSuites(pion.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256))
	if err == nil {
		t.Error("handshake succeeded")
	}
	eventually(t, "failure", func() bool { return w.server.Stats().Failures[FailNoCertificate] == 1 })
	if w.serverEvents.count() != 0 {
		t.Error("an association was established")
	}
}

// TestWithoutExtendedMasterSecret refuses a client that does not bind the
// master secret to the handshake.
func TestWithoutExtendedMasterSecret(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.tryLibraryClient(pion.WithRootCAs(w.ca.pool), pion.WithServerName("edge"), pion.WithCertificates(w.clientConfig.Certificate),
		pion.WithCipherSuites(pion.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), pion.WithExtendedMasterSecret(pion.DisableExtendedMasterSecret))
	if err == nil {
		t.Error("handshake succeeded")
	}
	eventually(t, "failure", func() bool { return w.server.Stats().Failures[FailSuite] == 1 })
}

// TestWeakSuites: a client that only has suites without forward secrecy or with
// CBC finds nothing in common.
func TestWeakSuites(t *testing.T) {
	for _, s := range []pion.CipherSuiteID{pion.TLS_PSK_WITH_AES_128_GCM_SHA256, pion.TLS_PSK_WITH_AES_128_CCM, pion.TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256} {
		t.Run(s.String(), func(t *testing.T) {
			w := newWorld(t, nil)
			_, err := w.tryLibraryClient(pion.WithPSK(func([]byte) ([]byte, error) { return testPSK, nil }),
				pion.WithPSKIdentityHint([]byte("laptop")), pion.WithCipherSuites(s))
			if err == nil {
				t.Error("handshake succeeded")
			}
			eventually(t, "failure", func() bool { return w.server.Stats().Failures[FailSuite] == 1 })
		})
	}
}

// TestUnknownIdentityLooksLikeWrongKey compares what the server sends in both
// cases: as many datagrams of the same lengths.
func TestUnknownIdentityLooksLikeWrongKey(t *testing.T) {
	t.Parallel()
	shape := func(p PreShared) (out []int) {
		w := newWorld(t, func(w *world) { w.dial.PSK = &p; w.clientConfig.FlightInterval = 5 * time.Second })
		tap := w.net.tap
		w.net.tap = func(from, to netip.AddrPort, b []byte) {
			tap(from, to, b)
			if from == w.serverSock.addr {
				out = append(out, len(b))
			}
		}
		_, err := w.connect(clientAddr)
		if err == nil {
			t.Fatal("connected")
		}
		return out
	}
	unknown := shape(PreShared{"laptob", testPSK})
	wrong := shape(PreShared{"laptop", []byte("another key of 32 bytes, really.")})
	if len(unknown) != len(wrong) {
		t.Fatalf("datagrams of %v bytes for an unknown identity, %v for a wrong key", unknown, wrong)
	}
	for i := range unknown {
		if unknown[i] != wrong[i] {
			t.Errorf("datagrams of %v bytes for an unknown identity, %v for a wrong key", unknown, wrong)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	w := newWorld(t, func(w *world) { w.clientConfig.HandshakeTimeout = 200 * time.Millisecond })
	w.net.setFilter(func(netip.AddrPort, netip.AddrPort, []byte) bool { return false })
	sock := w.net.socket(clientAddr)
	_, err := w.client.Dial(context.Background(), sock, w.serverSock.addr, w.dial)
	if !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("error: %v, want ETIMEDOUT", err)
	}
	if !sock.isClosed() {
		t.Error("socket still open")
	}
	if n := w.client.Stats().Failures[FailTimeout]; n != 1 {
		t.Errorf("counted %d time-outs", n)
	}
}

func TestDialCanceled(t *testing.T) {
	w := newWorld(t, nil)
	w.net.setFilter(func(netip.AddrPort, netip.AddrPort, []byte) bool { return false })
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := w.client.Dial(ctx, w.net.socket(clientAddr), w.serverSock.addr, w.dial)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, "x", false, nil)
	for name, c := range map[string]Config{
		"no roots":      {Certificate: cert},
		"unknown suite": {Suites: []Suite{0x00a8}},
		"limit":         {Limits: Limits{Records: 1 << 48}},
	} {
		if _, err := New(c, newRecorder(t)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{}, nil); err == nil {
		t.Error("no events: accepted")
	}
	n := newMemNet()
	remote := netip.MustParseAddrPort(serverAddr)
	for name, c := range map[string]struct {
		cert tls.Certificate
		p    DialParams
	}{
		"no credentials":      {tls.Certificate{}, DialParams{ServerName: "edge"}},
		"no name":             {cert, DialParams{}},
		"address as name":     {cert, DialParams{ServerName: "192.0.2.1"}},
		"IPv6 as name":        {cert, DialParams{ServerName: "[2001:db8::1]"}},
		"empty PSK identity":  {cert, DialParams{PSK: &PreShared{"", testPSK}}},
		"long PSK identity":   {cert, DialParams{PSK: &PreShared{strings.Repeat("x", 129), testPSK}}},
		"PSK below the bound": {cert, DialParams{PSK: &PreShared{"x", testPSK[:15]}}},
	} {
		e, err := New(Config{Certificate: c.cert, Roots: ca.pool}, newRecorder(t))
		check(t, err)
		sock := n.socket(clientAddr)
		if _, err := e.Dial(context.Background(), sock, remote, c.p); err == nil {
			t.Errorf("%s: dialled", name)
		}
		if !sock.isClosed() {
			t.Errorf("%s: socket still open", name)
		}
		check(t, e.Close())
	}
	e, err := New(Config{}, newRecorder(t))
	check(t, err)
	if err := e.Serve(context.Background(), n.socket(serverAddr)); err == nil {
		t.Error("served without credentials")
	}
	check(t, e.Close())
	if _, err := e.Dial(context.Background(), n.socket(clientAddr), remote, DialParams{PSK: &PreShared{"x", testPSK}}); err == nil {
		t.Error("dialled on a closed endpoint")
	}
	check(t, e.Close())
}

package dtls

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/udp"
)

// udpSocket is a plain UDP socket as a Socket.
type udpSocket struct{ c *net.UDPConn }

func listenUDP(t *testing.T) *udpSocket {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	return &udpSocket{c}
}

func (s *udpSocket) ReadBatch(ms []udp.Message) (int, error) {
	n, from, err := s.c.ReadFromUDPAddrPort(ms[0].Buf)
	if err != nil {
		return 0, err
	}
	ms[0].N, ms[0].Segment, ms[0].Addr = n, 0, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return 1, nil
}

func (s *udpSocket) WriteBatch(ms []udp.Message) (int, error) {
	for i, m := range ms {
		size := m.Segment
		if size == 0 {
			size = m.N
		}
		for b := m.Buf[:m.N]; len(b) > 0; {
			n := min(size, len(b))
			if _, err := s.c.WriteToUDPAddrPort(b[:n], m.Addr); err != nil {
				return i, err
			}
			b = b[n:]
		}
	}
	return len(ms), nil
}

func (s *udpSocket) LocalAddr() netip.AddrPort { return s.c.LocalAddr().(*net.UDPAddr).AddrPort() }
func (s *udpSocket) Close() error              { return s.c.Close() }

// openssl finds the program, which is in Debian's base system but not
// everywhere.
func openssl(t *testing.T) string {
	t.Helper()
	p, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl program: ", err)
	}
	if out, err := exec.Command(p, "s_server", "-help").CombinedOutput(); err != nil || !bytes.Contains(out, []byte("dtls1_2")) {
		t.Skip("this openssl has no DTLS 1.2")
	}
	return p
}

// pemFiles writes a certificate, its key and the CA.
func pemFiles(t *testing.T, ca *authority, c tls.Certificate) (cert, key, roots string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, typ string, der []byte) string {
		p := filepath.Join(dir, name)
		check(t, os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600))
		return p
	}
	k, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	check(t, err)
	return write("c.crt", "CERTIFICATE", c.Certificate[0]), write("c.key", "PRIVATE KEY", k), write("ca.crt", "CERTIFICATE", ca.cert.Raw)
}

// program is a running openssl whose lines are read.
type program struct {
	in    io.WriteCloser
	mu    sync.Mutex
	lines []string
	done  chan struct{}
}

func start(t *testing.T, name string, args ...string) *program {
	t.Helper()
	cmd := exec.Command(name, args...)
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	cmd.Stderr = cmd.Stdout
	check(t, cmd.Start())
	p := &program{in: in, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, sc.Text())
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		<-p.done
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(args, " "), strings.Join(p.lines, "\n"))
		}
	})
	return p
}

// count is the number of lines that begin with prefix.
func (p *program) count(prefix string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, l := range p.lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

var opensslCases = []struct {
	suite Suite
	name  string
}{
	{ECDHEECDSAWithAES128GCM, "ECDHE-ECDSA-AES128-GCM-SHA256"},
	{ECDHEECDSAWithAES256GCM, "ECDHE-ECDSA-AES256-GCM-SHA384"},
	{ECDHEECDSAWithChaCha20, "ECDHE-ECDSA-CHACHA20-POLY1305"},
	{ECDHERSAWithAES128GCM, "ECDHE-RSA-AES128-GCM-SHA256"},
	{ECDHERSAWithAES256GCM, "ECDHE-RSA-AES256-GCM-SHA384"},
	{ECDHERSAWithChaCha20, "ECDHE-RSA-CHACHA20-POLY1305"},
	{ECDHEPSKWithChaCha20, "ECDHE-PSK-CHACHA20-POLY1305"},
}

// opensslConfig is ours, and the arguments that give openssl the other side's
// credentials.
func opensslConfig(t *testing.T, s Suite, name string, client bool) (Config, []string) {
	ca := newAuthority(t)
	useRSA := s == ECDHERSAWithAES128GCM || s == ECDHERSAWithAES256GCM || s == ECDHERSAWithChaCha20
	ours, theirs := "edge", "laptop-7"
	if client {
		ours, theirs = theirs, ours
	}
	cfg := Config{ConnectionID: true, Suites: []Suite{s}, Roots: ca.pool, HandshakeTimeout: 8 * time.Second}
	args := []string{"-dtls1_2", "-quiet", "-cipher", name}
	if suites[s].psk {
		args = append(args, "-psk_identity", "laptop", "-psk", hex.EncodeToString(testPSK))
		cfg.LookupPSK = func(id string) ([]byte, bool) { return testPSK, id == "laptop" }
		if client {
			args = append(args, "-nocert")
		}
		return cfg, args
	}
	cfg.Certificate = ca.issue(t, ours, useRSA && !client, nil)
	cert, key, roots := pemFiles(t, ca, ca.issue(t, theirs, useRSA && client, nil))
	args = append(args, "-cert", cert, "-key", key, "-CAfile", roots)
	if client {
		args = append(args, "-Verify", "1", "-verify_return_error")
	} else {
		args = append(args, "-verify_return_error", "-verify_hostname", "edge")
	}
	return cfg, args
}

const opensslLines = 60

func TestOpenSSLServer(t *testing.T) {
	bin := openssl(t)
	for _, c := range opensslCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, args := opensslConfig(t, c.suite, c.name, true)
			probe := listenUDP(t)
			addr := probe.LocalAddr()
			check(t, probe.Close()) // for openssl to take
			p := start(t, bin, append([]string{"s_server", "-accept", addr.String()}, args...)...)
			ev := newRecorder(t)
			e, err := New(cfg, ev)
			check(t, err)
			defer func() { check(t, e.Close()) }()
			dial := DialParams{ServerName: "edge"}
			if suites[c.suite].psk {
				dial = DialParams{PSK: &PreShared{"laptop", testPSK}}
			}
			a, err := e.Dial(context.Background(), listenUDP(t), addr, dial)
			check(t, err)
			if i := a.Info(); i.Suite != c.suite {
				t.Errorf("%+v", i)
			}
			// Half of our lines in one batch of one size, as segmentation
			// offload sends them.
			head, tail := a.Overhead()
			var batch []byte
			size := 0
			for i := range opensslLines / 2 {
				line := fmt.Sprintf("batch %03d\n", i)
				b := make([]byte, head+len(line)+tail)
				copy(b[head:], line)
				size, err = a.Seal(b, len(line))
				check(t, err)
				batch = append(batch, b[:size]...)
			}
			check(t, a.Send(batch, size))
			for i := range opensslLines / 2 {
				check(t, sendRecord(a, fmt.Appendf(nil, "line %d\n", i)))
			}
			eventually(t, "lines at openssl", func() bool { return p.count("batch ")+p.count("line ") == opensslLines })
			for i := range opensslLines {
				_, err := fmt.Fprintf(p.in, "back %d\n", i)
				check(t, err)
			}
			eventually(t, "lines from openssl", func() bool {
				return bytes.Count(bytes.Join(ev.received(a), nil), []byte("back ")) == opensslLines
			})
			check(t, a.Close(nil))
			eventually(t, "end", func() bool { return ev.reason(a) != nil })
		})
	}
}

func TestOpenSSLClient(t *testing.T) {
	bin := openssl(t)
	for _, c := range opensslCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, args := opensslConfig(t, c.suite, c.name, false)
			ev := newRecorder(t)
			ev.echo = true
			e, err := New(cfg, ev)
			check(t, err)
			sock := listenUDP(t)
			done := make(chan error, 1)
			go func() { done <- e.Serve(context.Background(), sock) }()
			defer func() {
				check(t, e.Close())
				check(t, <-done)
			}()
			p := start(t, bin, append([]string{"s_client", "-connect", sock.LocalAddr().String()}, append(args, "-no_ign_eof")...)...)
			eventually(t, "association", func() bool { return ev.last() != nil })
			a := ev.last()
			for i := range opensslLines {
				_, err := fmt.Fprintf(p.in, "line %d\n", i)
				check(t, err)
			}
			eventually(t, "echoed lines", func() bool { return p.count("line ") == opensslLines })
			if want := map[bool]string{true: "laptop", false: "laptop-7"}[suites[c.suite].psk]; a.Identity().String() != want {
				t.Errorf("identity %v, want %v", a.Identity(), want)
			}
			check(t, p.in.Close()) // openssl says close_notify
			eventually(t, "end", func() bool { return ev.reason(a) != nil })
			if err := ev.reason(a); err != ErrClosedByPeer {
				t.Errorf("ended with: %v", err)
			}
		})
	}
}

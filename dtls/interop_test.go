package dtls

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/udp"
)

// What the tests with programs of others share.

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

// program is a running peer whose lines are read.
type program struct {
	in    io.WriteCloser
	mu    sync.Mutex
	lines []string
	done  chan struct{}
	// wait gives the program's end, which comes after done.
	wait func() error
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
	p := &program{in: in, done: make(chan struct{}), wait: sync.OnceValue(cmd.Wait)}
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
		_ = p.wait()
		if t.Failed() {
			t.Logf("%s:\n%s", strings.Join(args, " "), strings.Join(p.lines, "\n"))
		}
	})
	return p
}

// crashed reports whether the program has ended by a fault of its own.
func (p *program) crashed() bool {
	select {
	case <-p.done:
	default:
		return false
	}
	var e *exec.ExitError
	if !errors.As(p.wait(), &e) {
		return false
	}
	s, ok := e.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGSEGV
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

// interopConfig is ours, and the files that give the other side its credentials:
// certificate, key and authority; none for a PSK.
func interopConfig(t *testing.T, s Suite, client bool) (cfg Config, cert, key, roots string) {
	ca := newAuthority(t)
	useRSA := s == ECDHERSAWithAES128GCM || s == ECDHERSAWithAES256GCM || s == ECDHERSAWithChaCha20
	ours, theirs := "edge", "laptop-7"
	if client {
		ours, theirs = theirs, ours
	}
	cfg = Config{ConnectionID: true, Suites: []Suite{s}, Roots: ca.pool, HandshakeTimeout: 8 * time.Second}
	if suites[s].psk {
		cfg.LookupPSK = func(id string) ([]byte, bool) { return testPSK, id == "laptop" }
		return cfg, "", "", ""
	}
	cfg.Certificate = ca.issue(t, ours, useRSA && !client, nil)
	cert, key, roots = pemFiles(t, ca, ca.issue(t, theirs, useRSA && client, nil))
	return cfg, cert, key, roots
}

// interopDial is how we recognise the other side.
func interopDial(s Suite) DialParams {
	if suites[s].psk {
		return DialParams{PSK: &PreShared{"laptop", testPSK}}
	}
	return DialParams{ServerName: "edge"}
}

// interopIdentity is what the other side proves when it dials.
func interopIdentity(s Suite) string {
	if suites[s].psk {
		return "laptop"
	}
	return "laptop-7"
}

// interopLines is how many lines each way are exchanged.
const interopLines = 60

// sendLines sends half of the lines in one batch of one size, as segmentation
// offload does, and half one by one.
func sendLines(t *testing.T, a *Association) {
	t.Helper()
	head, tail := a.Overhead()
	var batch []byte
	size := 0
	for i := range interopLines / 2 {
		line := fmt.Sprintf("batch %03d\n", i)
		b := make([]byte, head+len(line)+tail)
		copy(b[head:], line)
		n, err := a.Seal(b, len(line))
		check(t, err)
		size = n
		batch = append(batch, b[:size]...)
	}
	check(t, a.Send(batch, size))
	for i := range interopLines / 2 {
		check(t, sendRecord(a, fmt.Appendf(nil, "line %d\n", i)))
	}
}

// freePort gives an address for a program to bind.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	s := listenUDP(t)
	defer func() { check(t, s.Close()) }()
	return s.LocalAddr()
}

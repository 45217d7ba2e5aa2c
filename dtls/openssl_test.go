package dtls

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os/exec"
	"testing"
)

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

// opensslConfig is ours, and the arguments for openssl.
func opensslConfig(t *testing.T, s Suite, name string, client bool) (Config, []string) {
	cfg, cert, key, roots := interopConfig(t, s, client)
	args := []string{"-dtls1_2", "-quiet", "-cipher", name}
	if cert == "" {
		args = append(args, "-psk_identity", "laptop", "-psk", hex.EncodeToString(testPSK))
		if client {
			args = append(args, "-nocert")
		}
		return cfg, args
	}
	args = append(args, "-cert", cert, "-key", key, "-CAfile", roots)
	if client {
		args = append(args, "-Verify", "1", "-verify_return_error")
	} else {
		args = append(args, "-verify_return_error", "-verify_hostname", "edge")
	}
	return cfg, args
}

func TestOpenSSLServer(t *testing.T) {
	bin := openssl(t)
	for _, c := range opensslCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, args := opensslConfig(t, c.suite, c.name, true)
			addr := freePort(t)
			p := start(t, bin, append([]string{"s_server", "-accept", addr.String()}, args...)...)
			ev := newRecorder(t)
			e, err := New(cfg, ev)
			check(t, err)
			defer func() { check(t, e.Close()) }()
			a, err := e.Dial(context.Background(), listenUDP(t), addr, interopDial(c.suite))
			check(t, err)
			if i := a.Info(); i.Suite != c.suite {
				t.Errorf("%+v", i)
			}
			sendLines(t, a)
			eventually(t, "lines at openssl", func() bool { return p.count("batch ")+p.count("line ") == interopLines })
			for i := range interopLines {
				_, err := fmt.Fprintf(p.in, "back %d\n", i)
				check(t, err)
			}
			eventually(t, "lines from openssl", func() bool {
				return bytes.Count(bytes.Join(ev.received(a), nil), []byte("back ")) == interopLines
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
			for i := range interopLines {
				_, err := fmt.Fprintf(p.in, "line %d\n", i)
				check(t, err)
			}
			eventually(t, "echoed lines", func() bool { return p.count("line ") == interopLines })
			if want := interopIdentity(c.suite); a.Identity().String() != want {
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

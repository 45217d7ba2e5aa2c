package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tougw/tougw/framing"
)

// FuzzParse parses any bytes. Whatever they are, the result is a complete
// Config or a list of errors with positions in the file, in order, one printable
// line each; and it is the same again.
func FuzzParse(f *testing.F) {
	for _, name := range examples {
		f.Add([]byte(readExample(f, name)))
	}
	for _, d := range clientDefects {
		f.Add([]byte(d.apply(f, goodClient)))
	}
	for _, d := range gatewayDefects {
		f.Add([]byte(d.apply(f, goodGateway)))
	}
	for _, d := range slices.Concat(translatorDefects, homaDefects) {
		f.Add([]byte(d.apply(f, goodTranslator)))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		cfg, err := Parse("c.yaml", content)
		if err == nil {
			checkConfig(t, cfg)
			checkErrors(t, content, cfg.Warnings)
			return
		}
		var errs Errors
		if cfg != nil || !errors.As(err, &errs) || len(errs) == 0 {
			t.Fatalf("got %v, %#v", cfg, err)
		}
		checkErrors(t, content, errs)
		if _, again := Parse("c.yaml", content); again == nil || again.Error() != err.Error() {
			t.Fatalf("first\n%v\nthen\n%v", err, again)
		}
	})
}

func checkConfig(x *testing.T, c *Config) {
	x.Helper()
	if c.Name == "" || c.Admin.Socket == "" || len(c.Listen)+len(c.Peers)+len(c.Translate) == 0 && c.Tun == nil {
		x.Fatalf("incomplete: %+v", c)
	}
	if len(c.Listen)+len(c.Peers) > 0 && !c.Identity.HasCert() && c.Identity.PSK == nil && c.Identity.PSKDir == "" {
		x.Fatalf("no identity: %+v", c)
	}
	if c.Tun != nil && (len(c.Tun.Addresses) == 0 || len(c.Rules) == 0 || c.Tun.Mark == 0) {
		x.Fatalf("incomplete tun: %+v", c.Tun)
	}
	for _, p := range c.Peers {
		if p.Name == "" || len(p.Endpoints) == 0 {
			x.Fatalf("incomplete peer: %+v", p)
		}
	}
	for _, a := range c.Accept {
		if a.Peer.String() == "" || len(a.Dst) == 0 || a.Action == "" {
			x.Fatalf("incomplete accept: %+v", a)
		}
	}
	for _, r := range c.Rules {
		if r.Action == "" || (r.Action == ActionTunnel) != (r.Peer != "") {
			x.Fatalf("incomplete rule: %+v", r)
		}
	}
	for _, t := range c.Translate {
		if t.Name == "" || t.From.Addr.Port() == 0 || len(t.To.Addrs) == 0 || (t.From.Kind == TranslateHoma) == (t.To.Kind == TranslateHoma) {
			x.Fatalf("incomplete translation: %+v", t)
		}
		if _, err := framing.New(t.Framing); err != nil || t.Framing.Max > maxHomaMessage || t.Limits.Buffer < t.Framing.Max {
			x.Fatalf("framing of %s: %v", t.Name, err)
		}
	}
	if len(c.Homa.Version) == 0 || c.Homa.Timeout < 2*c.Homa.Resend {
		x.Fatalf("incomplete homa: %+v", c.Homa)
	}
}

func checkErrors(t *testing.T, content []byte, errs Errors) {
	t.Helper()
	lines := strings.Count(string(content), "\n") + 1
	if len(errs) > maxCollected {
		t.Fatalf("%d errors", len(errs))
	}
	if !slices.IsSortedFunc(errs, func(a, b *Error) int { return a.Line - b.Line }) {
		t.Fatalf("not in order:\n%v", errs)
	}
	for _, e := range errs {
		// The library counts a lone carriage return and the line separators of
		// Unicode as line ends, too.
		if e.Line < 0 || e.Line > lines+strings.Count(string(content), "\r")+strings.Count(string(content), "\u2028")+
			strings.Count(string(content), "\u2029")+strings.Count(string(content), "\u0085")+1 || e.Line > 0 && e.Col < 1 {
			t.Fatalf("position of %v, in %d lines", e, lines)
		}
		for _, r := range e.Error() {
			if !strconv.IsPrint(r) {
				t.Fatalf("%q is not printable", e.Error())
			}
		}
		if len(e.Error()) > 4096 {
			t.Fatalf("a line of %d bytes: %.100s", len(e.Error()), e.Error())
		}
	}
}

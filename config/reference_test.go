package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/tougw/tougw/framing"
)

// examples are the files beside the parser.
var examples = []string{
	"minimal-client.yaml", "minimal-gateway.yaml", "minimal-translator.yaml",
	"reference-client.yaml", "reference-gateway.yaml", "reference-translator.yaml",
}

func readExample(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// loadExample loads a copy of an example beside the files that it names.
func loadExample(t *testing.T, dir, content string) *Config {
	t.Helper()
	cfg, err := Load(put(t, dir, content))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("warnings:\n%v", cfg.Warnings)
	}
	return cfg
}

func TestExamplesLoad(t *testing.T) {
	for _, name := range examples {
		t.Run(name, func(t *testing.T) {
			loadExample(t, credentials(t), readExample(t, name))
		})
	}
}

func TestMinimalIsMinimal(t *testing.T) {
	for _, name := range examples[:3] {
		if n := strings.Count(readExample(t, name), "\n"); n >= 10 {
			t.Errorf("%s has %d lines", name, n)
		}
	}
}

// TestReferenceShowsDefaults compares what the reference files call the default
// with the default.
func TestReferenceShowsDefaults(t *testing.T) {
	dir := credentials(t)
	client := loadExample(t, dir, readExample(t, "reference-client.yaml"))
	gateway := loadExample(t, dir, readExample(t, "reference-gateway.yaml"))
	want := Default()
	for _, c := range []*Config{client, gateway} {
		if c.Flows != want.Flows {
			t.Errorf("flows of %s: got %+v, want %+v", c.Name, c.Flows, want.Flows)
		}
		if c.Associations != want.Associations {
			t.Errorf("associations of %s: got %+v, want %+v", c.Name, c.Associations, want.Associations)
		}
		if c.Log.Level != want.Log.Level {
			t.Errorf("log level of %s: got %v, want %v", c.Name, c.Log.Level, want.Log.Level)
		}
		if want := "/run/tougw/" + c.Name + ".sock"; c.Admin.Socket != want {
			t.Errorf("socket of %s: got %s, want %s", c.Name, c.Admin.Socket, want)
		}
	}
	translator := loadExample(t, dir, readExample(t, "reference-translator.yaml"))
	for _, tr := range translator.Translate {
		got := DefaultTranslate(tr.To.Kind, tr.Framing.Type == framing.TypeStream)
		got.Name, got.From, got.To, got.Framing = tr.Name, tr.From, tr.To, tr.Framing
		if !reflect.DeepEqual(got, tr) {
			t.Errorf("rule %s: got %+v, want %+v", tr.Name, tr, got)
		}
	}
	homa := translator.Homa
	homa.Addresses, homa.Device, homa.Peers, homa.LinkPriority = nil, "", nil, nil
	if !reflect.DeepEqual(homa, want.Homa) {
		t.Errorf("homa: got %+v, want %+v", homa, want.Homa)
	}
	tun := *client.Tun
	tun.Addresses, tun.Routes = nil, nil
	if !reflect.DeepEqual(&tun, DefaultTun()) {
		t.Errorf("tun: got %+v, want %+v", tun, *DefaultTun())
	}
}

// uncomment removes the comment sign from the lines that start with one of keys.
func uncomment(content string, indent int, keys ...string) string {
	sign := regexp.MustCompile(`(?m)^(` + strings.Repeat(" ", indent) + `)# ( *(?:- )?(?:` + strings.Join(keys, "|") + `):)`)
	return sign.ReplaceAllString(content, "$1$2")
}

// The reference files with the alternatives that they show behind comment signs.

func clientWithPSK(t *testing.T) string {
	s := readExample(t, "reference-client.yaml")
	s = regexp.MustCompile(`(?m)^  (cert|key|ca): .*\n`).ReplaceAllString(s, "")
	s = uncomment(s, 2, "psk", "identity", "key_file")
	return regexp.MustCompile(`(?m)^# (accept:|  - )`).ReplaceAllString(s, "$1")
}

func gatewayWithTun(t *testing.T) string {
	return uncomment(readExample(t, "reference-gateway.yaml"), 0, "tun", "rules")
}

func gatewayWithHoma(t *testing.T) string {
	return uncomment(readExample(t, "reference-gateway.yaml"), 0, "translate", "name", "from", "to", "framing")
}

func TestAlternativesOfTheReference(t *testing.T) {
	cfg := loadExample(t, credentials(t), clientWithPSK(t))
	if cfg.Identity.PSK == nil || cfg.Identity.HasCert() || len(cfg.Accept) != 1 {
		t.Errorf("identity is %+v, accept %+v", cfg.Identity, cfg.Accept)
	}
	cfg = loadExample(t, credentials(t), gatewayWithTun(t))
	if cfg.Tun == nil || len(cfg.Rules) != 1 {
		t.Errorf("tun is %+v, rules %+v", cfg.Tun, cfg.Rules)
	}
	cfg = loadExample(t, credentials(t), gatewayWithHoma(t))
	if len(cfg.Translate) != 1 || cfg.Translate[0].To.Via != "edge-2" || !cfg.TunnelsHoma() {
		t.Errorf("translate is %+v", cfg.Translate)
	}
}

// TestReferenceHasEveryKey looks for every key of the parser in the reference
// files, be it behind a comment sign.
func TestReferenceHasEveryKey(t *testing.T) {
	found := map[string]bool{}
	for _, content := range []string{readExample(t, "reference-client.yaml"), clientWithPSK(t), gatewayWithHoma(t), readExample(t, "reference-translator.yaml")} {
		d := &decoder{file: "c.yaml"}
		var raw rawFile
		d.decode(&raw, d.document([]byte(content)), "")
		if len(d.errs) > 0 {
			t.Fatal(d.errs)
		}
		markGiven(found, "", &raw)
	}
	for _, path := range Keys() {
		if !found[path] {
			t.Errorf("%s is in neither reference file", path)
		}
	}
}

// markGiven adds the keys of o that are given to found, spelt as by Keys.
func markGiven(found map[string]bool, prefix string, o object) {
	for _, f := range o.fields() {
		path := prefix + f.key
		if !f.into.place().given() {
			continue
		}
		switch into := f.into.(type) {
		case object:
			found[path] = true
			markGiven(found, path+".", into)
		case *scalars:
			found[path+"[]"] = true
		case *scalarOrList:
			found[path] = true
		case *scalar:
			found[path] = true
		case interface{ each(func(object)) }:
			found[path+"[]"] = true
			into.each(func(o object) { markGiven(found, path+"[].", o) })
		}
	}
}

// each calls f for the elements of l.
func (l *objects[T, P]) each(f func(object)) {
	for i := range l.items {
		f(P(&l.items[i]))
	}
}

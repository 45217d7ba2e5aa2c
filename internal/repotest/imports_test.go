package repotest

import (
	"strings"
	"testing"
)

// owners says which top-level packages alone may import a library, so that its
// types and its changes stay behind one door.
var owners = []struct {
	prefix string
	dirs   []string
}{
	{"gvisor.dev/gvisor", []string{"tcpip"}},
	{"github.com/pion/", []string{"dtls"}},
	{"github.com/songgao/water", []string{"tun"}},
	{"github.com/vishvananda/netlink", []string{"tun", "internal/testnet"}},
	{"github.com/vishvananda/netns", []string{"tun", "internal/testnet"}},
	{"go.yaml.in/yaml", []string{"config"}},
}

// layers says what each part may import of this module besides its own
// subfolders and the plumbing under internal/. Siblings do not import each
// other: the consumer declares the interface that it needs, and gateway plugs
// them together.
var layers = map[string][]string{
	"cmd":       {"gateway", "config", "homa"},
	"gateway":   {"bridge", "tunnel", "tcpip", "homa", "dtls", "tun", "config", "gue", "translate", "framing"},
	"translate": {"framing", "homa"},
	"tunnel":    {"gue"},
	"bridge":    nil,
	"config":    {"framing"},
	"dtls":      nil,
	"framing":   nil,
	"gue":       nil,
	"homa":      nil,
	"tcpip":     nil,
	"tun":       nil,
	"internal":  nil,
}

// base is what everything stands on and imports nothing of this module.
const base = "internal/packet"

// testOnly are the packages that only tests and the programs of test/ import.
var testOnly = []string{"internal/simnet", "internal/testnet", "tcpip/tcptest", "test"}

// within reports whether dir is one of dirs or below one of them.
func within(dir string, dirs ...string) bool {
	for _, d := range dirs {
		if dir == d || strings.HasPrefix(dir, d+"/") {
			return true
		}
	}
	return false
}

func TestLibrariesHaveOneOwner(t *testing.T) {
	_, files := source(t)
	for _, f := range files {
		for _, path := range f.imports() {
			for _, o := range owners {
				if strings.HasPrefix(path, o.prefix) && !within(f.dir, o.dirs...) {
					t.Errorf("%s imports %s, which only %s may", f.path, path, strings.Join(o.dirs, ", "))
				}
			}
		}
	}
}

func TestDirectionOfImports(t *testing.T) {
	_, files := source(t)
	for _, f := range files {
		layer := layerOf(f.dir)
		if layer == "" && !within(f.dir, "test") {
			t.Errorf("%s: no layer is declared for folder %q", f.path, f.dir)
			continue
		}
		for _, path := range f.imports() {
			dir, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				continue
			}
			inTests := f.test || within(f.dir, "test") || within(f.dir, testOnly...)
			if within(dir, testOnly...) && !inTests {
				t.Errorf("%s imports %s, which is for tests only", f.path, dir)
				continue
			}
			if inTests && within(dir, testOnly...) || within(f.dir, "test") {
				continue
			}
			if within(f.dir, base) && !within(dir, base) {
				t.Errorf("%s imports %s: %s imports nothing of this module", f.path, dir, base)
			}
			if !within(dir, layer, "internal") && !within(dir, layers[layer]...) {
				t.Errorf("%s imports %s: beside internal/, %s may import %v", f.path, dir, layer, layers[layer])
			}
		}
	}
}

// layerOf finds the key of layers that dir belongs to.
func layerOf(dir string) string {
	for layer := range layers {
		if within(dir, layer) {
			return layer
		}
	}
	return ""
}

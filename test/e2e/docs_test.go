package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tougw/tougw/test/lab"
)

// credentials finds the names of the certificates and keys that a
// configuration uses.
var credentials = regexp.MustCompile(`\b(?:cert|key_file): *([a-z0-9-]+)\.(crt|psk)`)

// TestExamplesAreRight: every block of YAML in the documents for users is a
// configuration that `tougw check` accepts, once the identities that it names
// have been made as the documents say.
func TestExamplesAreRight(t *testing.T) {
	checked := 0
	for _, document := range []string{"README.md", "docs/translator.md"} {
		text, err := os.ReadFile("../../" + document)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "```yaml\n")[1:] {
			block, _, _ = strings.Cut(block, "```")
			checked++
			t.Run(fmt.Sprintf("%s, %d", document, i+1), func(t *testing.T) {
				l := &lab.Lab{Dir: t.TempDir(), Binary: binary}
				for _, m := range credentials.FindAllStringSubmatch(block, -1) {
					var err error
					if m[2] == "psk" {
						_, err = l.Tougw(t.Context(), "keygen", "psk", m[1], "--out", l.Dir)
					} else {
						err = l.Keygen(t.Context(), m[1])
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				file, err := l.WriteFile("example.yaml", block)
				if err == nil {
					_, err = l.Tougw(t.Context(), "check", "-c", file)
				}
				if err != nil {
					t.Errorf("%v\n%s", err, block)
				}
			})
		}
	}
	t.Logf("%d examples", checked)
}

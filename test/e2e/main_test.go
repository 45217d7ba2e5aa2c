package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var (
	// long adds the cases that take minutes.
	long = os.Getenv("TOUGW_LONG") != ""
	// binary is the tougw under test.
	binary = os.Getenv("TOUGW")
	// results is where failed tests leave what there is to see.
	results string
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return 0, err
	}
	results = filepath.Join(root, "e2e-results")
	if err := os.RemoveAll(results); err != nil {
		return 0, err
	}
	if binary == "" {
		dir, err := os.MkdirTemp("", "tougw-bin-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "tougw")
		build := exec.Command("go", "build", "-o", binary, "./cmd/tougw")
		build.Dir = root
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return m.Run(), nil
}

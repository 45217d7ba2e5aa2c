package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

var namespaces = regexp.MustCompile(`tnet-[0-9a-f]+-[a-z]+`)

// TestDemo interrupts a demo in the middle and runs another one to its end. Both
// must leave nothing behind.
func TestDemo(t *testing.T) {
	testnet.Require(t)
	demo, tougw := filepath.Join(t.TempDir(), "demo"), os.Getenv("TOUGW")
	build(t, demo, ".")
	if tougw == "" {
		tougw = filepath.Join(t.TempDir(), "tougw")
		build(t, tougw, "../../cmd/tougw")
	}
	for _, c := range []struct {
		name string
		// until is what the demo has printed when it is interrupted.
		until string
		code  int
		says  []string
	}{
		{"interrupted", "\n7. iperf3", 130, []string{"Interrupted"}},
		{"whole", "", 0, []string{"SHA-256 as sent and as received", "DTLS 1.2 records and nothing else", "All of it worked", "What to try next"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmp := t.TempDir()
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			out := &testnet.Output{}
			cmd := exec.CommandContext(ctx, demo, "-tougw", tougw)
			cmd.Stdout, cmd.Stderr = out, out
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if c.until != "" {
				err := testnet.Poll(ctx, func() error {
					if !strings.Contains(out.String(), c.until) {
						return fmt.Errorf("the demo has not said %q", c.until)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
					t.Error(err)
				}
			}
			err := cmd.Wait()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				err = nil
			}
			if err != nil || cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("exit code %d, %v; want %d:\n%s", cmd.ProcessState.ExitCode(), err, c.code, out)
			}
			for _, text := range c.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("the demo does not say %q:\n%s", text, out)
				}
			}
			names := namespaces.FindAllString(out.String(), -1)
			if len(names) < 5 {
				t.Errorf("the demo names %d namespaces, want at least 5:\n%s", len(names), out)
			}
			for _, name := range names {
				if _, err := os.Stat("/run/netns/" + name); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left behind: %v", name, err)
				}
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("files are left behind: %v, %v", left, err)
			}
		})
	}
}

func build(t *testing.T, out, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, text)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// installPatience bounds the installation of one contender, downloads
// included.
const installPatience = 5 * time.Minute

// tools are the programs that are measured or help with it.
type tools struct {
	// tougw is a copy of the product's program, so that a build meanwhile does
	// not change what is measured; folder holds it.
	tougw, folder string
	// cache is a folder of the user where other programs are built.
	cache string
}

// newTools copies the product's program. The caller must close the tools.
func newTools(tougw string) (*tools, error) {
	program, err := os.ReadFile(tougw)
	if err != nil {
		return nil, fmt.Errorf("%w (make build)", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	cache = filepath.Join(cache, "tougw-bench")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	t := &tools{tougw: filepath.Join(folder, "tougw"), folder: folder, cache: cache}
	if err := os.WriteFile(t.tougw, program, 0o755); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// close removes the copy.
func (t *tools) close() error { return os.RemoveAll(t.folder) }

// output runs a program and returns its standard output; the error holds the
// end of what it wrote to standard error.
func (t *tools) output(ctx context.Context, program string, args ...string) (string, error) {
	return outputOf(exec.CommandContext(ctx, program, args...))
}

func outputOf(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			text := strings.TrimSpace(string(exit.Stderr))
			err = fmt.Errorf("%w: %s", err, text[max(0, len(text)-500):])
		}
		err = fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return string(out), err
}

// goInstall builds programs of another module, outside of this one, whose
// go.mod has no say in it, into a folder of the cache, and returns it.
func (t *tools) goInstall(ctx context.Context, folder string, packages ...string) (string, error) {
	folder = filepath.Join(t.cache, folder)
	cmd := exec.CommandContext(ctx, "go", append([]string{"install"}, packages...)...)
	cmd.Env = append(os.Environ(), "GOBIN="+folder, "CGO_ENABLED=0", "GOFLAGS=")
	cmd.Dir = os.TempDir()
	_, err := outputOf(cmd)
	return folder, err
}

// have says whether all programs are in a folder of the cache already.
func (t *tools) have(folder string, programs ...string) (string, bool) {
	folder = filepath.Join(t.cache, folder)
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(folder, p)); err != nil {
			return folder, false
		}
	}
	return folder, true
}

// moduleVersion is what a program built by Go says of its main module.
func (t *tools) moduleVersion(ctx context.Context, program string) (string, error) {
	out, err := t.output(ctx, "go", "version", "-m", program)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) >= 3 && f[0] == "mod" {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("%s does not say its version", program)
}

// debian installs packages for programs that are missing, each given as
// PROGRAM=PACKAGE.
func (t *tools) debian(ctx context.Context, wants ...string) error {
	var missing []string
	for _, want := range wants {
		program, _, _ := strings.Cut(want, "=")
		if _, err := lookPath(program); err != nil {
			missing = append(missing, want)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	script := filepath.Join("test", "need")
	if _, err := os.Stat(script); err != nil {
		return fmt.Errorf("missing: %s (PROGRAM=DEBIAN PACKAGE)", strings.Join(missing, " "))
	}
	_, err := t.output(ctx, script, missing...)
	return err
}

// lookPath finds a program, also in the folders of the administrator.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, folder := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(folder, program)); err == nil {
			return path, nil
		}
	}
	return "", err
}

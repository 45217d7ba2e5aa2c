package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tougw/tougw/internal/testnet"
)

// stopPatience is how long a program may take to end after SIGTERM; a daemon
// drains its flows meanwhile.
const stopPatience = 30 * time.Second

// Lab is a network with the programs that run in it.
type Lab struct {
	*testnet.Net
	// Dir holds configuration, keys, sockets and logs.
	Dir string
	// Binary is the tougw that is run.
	Binary string

	mu        sync.Mutex
	processes []*testnet.Process
	daemons   []*Daemon
	logs      []*os.File
}

// New builds a network and an empty folder for it. The caller must Close it.
func New(binary string, opts testnet.Options) (*Lab, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("lab: %w (make build)", err)
	}
	// The path stays short: the name of a UNIX socket has 107 bytes.
	dir, err := os.MkdirTemp("", "tougw-")
	if err != nil {
		return nil, err
	}
	net, err := testnet.New(opts)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Lab{Net: net, Dir: dir, Binary: binary}, nil
}

// Close stops all programs, daemons gracefully, and removes the network. The
// folder stays until RemoveDir. The error tells which daemon panicked, reported
// a data race or did not stop when asked.
func (l *Lab) Close() error {
	l.mu.Lock()
	daemons, processes, logs := l.daemons, l.processes, l.logs
	l.daemons, l.processes, l.logs = nil, nil, nil
	l.mu.Unlock()

	// Programs first: a daemon would wait for their flows to end.
	for _, p := range processes {
		p.Kill()
		<-p.Done()
	}
	var errs []error
	for _, d := range daemons {
		errs = append(errs, d.Stop(), d.inspect())
	}
	errs = append(errs, l.Net.Close())
	for _, f := range logs {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// RemoveDir removes the folder, after Close.
func (l *Lab) RemoveDir() error { return os.RemoveAll(l.Dir) }

// Path of a file in the lab's folder.
func (l *Lab) Path(name string) string { return filepath.Join(l.Dir, name) }

// WriteFile writes a file into the lab's folder and returns its path.
func (l *Lab) WriteFile(name, content string) (string, error) {
	path := l.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(content), 0o644)
}

// Tougw runs the binary with arguments, outside of all namespaces, in the
// lab's folder, and returns what it wrote to standard output.
func (l *Lab) Tougw(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.Binary, args...)
	cmd.Dir = l.Dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("tougw %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

// Keygen makes a certificate authority in the lab's folder, unless it is there,
// and one identity for each name.
func (l *Lab) Keygen(ctx context.Context, names ...string) error {
	if _, err := os.Stat(l.Path("ca.crt")); err != nil {
		if _, err := l.Tougw(ctx, "keygen", "ca", "--out", l.Dir); err != nil {
			return err
		}
	}
	for _, name := range names {
		if _, err := l.Tougw(ctx, "keygen", "identity", name, "--ca", l.Dir, "--out", l.Dir); err != nil {
			return err
		}
	}
	return nil
}

// Go starts a program in a namespace with the lab's folder as its working
// folder and what it writes in NAME.log, both streams. Close kills it.
func (l *Lab) Go(ns *testnet.Namespace, name, program string, args ...string) (*testnet.Process, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = l.Dir
	log, err := l.log(name)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	p, err := ns.Start(cmd)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.processes = append(l.processes, p)
	l.mu.Unlock()
	return p, nil
}

// log opens NAME.log for appending, until Close.
func (l *Lab) log(name string) (*os.File, error) {
	f, err := os.OpenFile(l.Path(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err == nil {
		l.mu.Lock()
		l.logs = append(l.logs, f)
		l.mu.Unlock()
	}
	return f, err
}

// tail returns the end of NAME.log, for messages.
func (l *Lab) tail(name string) string {
	const most = 2000
	text, err := os.ReadFile(l.Path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// died says that a program ended too early, with the end of its log.
func (l *Lab) died(name string, p *testnet.Process) error {
	return fmt.Errorf("lab: %s ended: %v\n%s", name, p.Wait(), l.tail(name))
}

// untilListening waits until the program listens on a TCP port.
func (l *Lab) untilListening(ctx context.Context, ns *testnet.Namespace, name string, p *testnet.Process, port uint16) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.Done():
			cancel(l.died(name, p))
		case <-ctx.Done():
		}
	}()
	return ns.WaitListening(ctx, port)
}

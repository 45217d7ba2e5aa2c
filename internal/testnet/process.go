package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs in a namespace.
type Process struct {
	*exec.Cmd
	done chan struct{}
	err  error // of Wait, once done is closed
}

// Start starts cmd inside the namespace, in a process group of its own. The
// kernel kills it when this process dies. A Context of cmd works as usual.
func (ns *Namespace) Start(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// In a session of its own it has a group of its own, and one cannot ask
	// for both.
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	var err error
	ns.keep(func() { err = cmd.Start() })
	if err != nil {
		return nil, fmt.Errorf("testnet: %s: %w", ns.Name, err)
	}
	p := &Process{Cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run runs a program to its end and returns its standard output; the error
// holds the end of what it wrote to standard error. When ctx ends the program
// is killed.
func (ns *Namespace) Run(ctx context.Context, name string, args ...string) (string, error) {
	return ns.RunInput(ctx, "", name, args...)
}

// RunInput is Run with text for the program's standard input.
func (ns *Namespace) RunInput(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	p, err := ns.Start(cmd)
	if err != nil {
		return "", err
	}
	<-p.done
	if p.err != nil {
		text := strings.TrimSpace(stderr.String())
		if len(text) > 1000 {
			text = "..." + text[len(text)-1000:]
		}
		return stdout.String(), fmt.Errorf("%s: %w: %s", name, p.err, text)
	}
	return stdout.String(), nil
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the program and returns what exec.Cmd.Wait did.
// Unlike that it may be called often and by many.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Stop asks the program to end and kills its process group if it has not
// within patience. It returns what Wait returns; nil when it ended by the very
// signal that asked.
func (p *Process) Stop(patience time.Duration) error {
	_ = p.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
		<-p.done
		return fmt.Errorf("testnet: %s did not stop within %v", filepath.Base(p.Path), patience)
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
			return nil
		}
	}
	return p.err
}

// Kill kills the process group at once. It does not wait.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL)
}

// killAll kills every process in the namespace of this name and waits until
// none is left. Threads of this very process are spared.
func killAll(name string) {
	target, err := os.Stat(filepath.Join("/run/netns", name))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = Poll(ctx, func() error {
		found := inhabitants(target)
		for _, pid := range found {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(found) > 0 {
			return fmt.Errorf("processes %v are left in %s", found, name)
		}
		return nil
	})
}

// inhabitants lists the processes, other than this one, whose network namespace
// is target. Dead ones that nobody has waited for have no namespace any more.
func inhabitants(target fs.FileInfo) (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil && os.SameFile(info, target) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Output collects what a program writes, for reading while it runs. The zero
// value is ready; it is safe for concurrent use.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends to what was collected.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String returns what was collected so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/internal/testnet"
)

// Daemon is a `tougw run` in a namespace.
type Daemon struct {
	*testnet.Process
	// Name is that of the configuration; File is its path.
	Name, File string
	// Namespace is where it runs.
	Namespace *testnet.Namespace

	lab     *Lab
	stopped bool
}

// Start writes NAME.yaml, starts a daemon with it and waits until its admin
// socket answers.
func (l *Lab) Start(ctx context.Context, ns *testnet.Namespace, c Config) (*Daemon, error) {
	file, err := l.WriteFile(c.Name+".yaml", c.String())
	if err != nil {
		return nil, err
	}
	d := &Daemon{Name: c.Name, File: file, Namespace: ns, lab: l}
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.daemons = append(l.daemons, d)
	l.mu.Unlock()
	return d, nil
}

func (d *Daemon) start(ctx context.Context) error {
	log, err := d.lab.log(d.Name)
	if err != nil {
		return err
	}
	cmd := exec.Command(d.lab.Binary, "run", "-c", d.File)
	cmd.Dir = d.lab.Dir
	cmd.Stdout, cmd.Stderr = log, log
	p, err := d.Namespace.Start(cmd)
	if err != nil {
		return err
	}
	d.Process, d.stopped = p, false
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-p.Done():
			stop(d.lab.died(d.Name, p))
		case <-ctx.Done():
		}
	}()
	err = testnet.Poll(ctx, func() error {
		s, err := d.Status(ctx)
		if err == nil && s.PID != p.Cmd.Process.Pid {
			err = fmt.Errorf("lab: process %d answers on the socket of %s", s.PID, d.Name)
		}
		return err
	})
	if err != nil {
		p.Kill()
		<-p.Done()
		return fmt.Errorf("lab: %s does not start: %w", d.Name, err)
	}
	return nil
}

// Restart starts the daemon again after Stop or Kill9.
func (d *Daemon) Restart(ctx context.Context) error { return d.start(ctx) }

// Stop asks the daemon to end and waits. Calling it again, or after Kill9, does
// nothing.
func (d *Daemon) Stop() error {
	if d.stopped {
		return nil
	}
	d.stopped = true
	if err := d.Process.Stop(stopPatience); err != nil {
		return fmt.Errorf("lab: stop %s: %w\n%s", d.Name, err, d.lab.tail(d.Name))
	}
	return nil
}

// Kill9 kills the daemon without a chance to clean up, and waits.
func (d *Daemon) Kill9() {
	d.stopped = true
	d.Kill()
	<-d.Done()
}

// inspect looks for what must never stand in a log.
func (d *Daemon) inspect() error {
	text, err := os.ReadFile(d.lab.Path(d.Name + ".log"))
	if err != nil {
		return err
	}
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:"} {
		if i := strings.Index(string(text), bad); i >= 0 {
			return fmt.Errorf("lab: %s: %s", d.Name, text[i:min(len(text), i+4000)])
		}
	}
	return nil
}

// Socket is the path of the admin socket.
func (d *Daemon) Socket() string { return d.lab.Path(d.Name + ".sock") }

// Ask runs a subcommand of tougw (status, flows) against the daemon and decodes
// its JSON into answer.
func (d *Daemon) Ask(ctx context.Context, subcommand string, answer any) error {
	out, err := d.lab.Tougw(ctx, subcommand, "--json", "--socket", d.Socket())
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		return fmt.Errorf("lab: tougw %s --json: %w", subcommand, err)
	}
	return nil
}

// Status is `tougw status --json`.
func (d *Daemon) Status(ctx context.Context) (s admin.Status, err error) {
	return s, d.Ask(ctx, "status", &s)
}

// Flows is `tougw flows --json`.
func (d *Daemon) Flows(ctx context.Context) (f []admin.Flow, err error) {
	return f, d.Ask(ctx, "flows", &f)
}

// Drops returns how often the daemon dropped something for a reason; without a
// reason, all drops together.
func (d *Daemon) Drops(ctx context.Context, reason string) (n uint64, err error) {
	s, err := d.Status(ctx)
	for _, drop := range s.Drops {
		if reason == "" || drop.Reason == reason {
			n += drop.Count
		}
	}
	return n, err
}

// WaitPeer waits until a peer of this name is in a state: up, connecting,
// waiting, down.
func (d *Daemon) WaitPeer(ctx context.Context, name, state string) error {
	return testnet.Poll(ctx, func() error {
		s, err := d.Status(ctx)
		if err != nil {
			return err
		}
		for _, p := range s.Peers {
			if p.Name == name {
				if p.State == state {
					return nil
				}
				return fmt.Errorf("lab: %s: peer %s is %s (%s), not %s", d.Name, name, p.State, p.Error, state)
			}
		}
		return fmt.Errorf("lab: %s has no peer %s", d.Name, name)
	})
}

// Metrics returns the metrics page of the admin HTTP server: each value under
// its name with labels, as on the page, and the sums over all labels under the
// bare names.
func (d *Daemon) Metrics(ctx context.Context) (map[string]float64, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.Namespace.Dial(ctx, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9180/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: metrics of %s: %w", d.Name, err)
	}
	sums := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if i < 0 {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			continue
		}
		name, _, labelled := strings.Cut(line[:i], "{")
		sums[name] += value
		if labelled {
			sums[line[:i]] = value
		}
	}
	return sums, nil
}

// Usage is what a process holds and has used.
type Usage struct {
	// Descriptors is the number of open files.
	Descriptors int
	// RSS is its resident memory, in bytes.
	RSS int64
	// CPU is its processor time, user and system.
	CPU time.Duration
}

// UsageOf reads /proc for a process.
func UsageOf(pid int) (u Usage, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return u, err
	}
	u.Descriptors = len(fds)
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return u, err
	}
	// The name, in parentheses, may hold anything; user and system time are the
	// 12th and 13th field behind it, the resident pages the 22nd.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 22 {
		return u, fmt.Errorf("lab: cannot read %s/stat: %q", proc, stat)
	}
	var n [3]int64
	for i, field := range []int{11, 12, 21} {
		if n[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return u, err
		}
	}
	const ticksPerSecond = 100 // USER_HZ, part of the kernel's ABI
	u.CPU = time.Duration(n[0]+n[1]) * time.Second / ticksPerSecond
	u.RSS = n[2] * int64(os.Getpagesize())
	return u, nil
}

// Usage of the daemon now.
func (d *Daemon) Usage() (Usage, error) { return UsageOf(d.Cmd.Process.Pid) }

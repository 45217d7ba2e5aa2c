package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/bench/load"
)

// loadCommand is the first argument of the processes of package load.
const loadCommand = "load"

// loadBase is the first port of the server of package load.
const loadBase = 7000

// congestion control of the applications. BBR paces, which makes bursts
// smaller, and the default differs between hosts.
const congestion = "cubic"

// target is that server.
var target = load.Target{Addr: testnet.ServerAddr, Base: loadBase, Congestion: congestion}

// runLoad is the body of a process of package load, chosen by the arguments
// that loadArgs made.
func runLoad(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(loadCommand, flag.ContinueOnError)
	connections := flags.Int("connections", 1, "at a time")
	size := flags.Int("size", 0, "bytes of a request")
	warmUp := flags.Duration("warm-up", 0, "before measuring")
	length := flags.Duration("time", 0, "of measuring")
	if len(args) < 2 {
		return errors.New("load: missing arguments: server|requests|connections|idle ADDRESS:PORT [flags]")
	}
	to, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return err
	}
	if err := flags.Parse(args[2:]); err != nil {
		return err
	}
	t := load.Target{Addr: to.Addr(), Base: to.Port(), Congestion: congestion}
	var report load.Report
	switch args[0] {
	case "server":
		return load.RunServer(ctx, t)
	case "idle":
		return load.RunIdle(ctx, t, os.Stdin, os.Stdout)
	case "requests":
		report, err = load.RunRequests(ctx, load.Requests{Target: t, Connections: *connections, Size: *size, WarmUp: *warmUp, Time: *length})
	case "connections":
		report, err = load.RunConnections(ctx, load.Connections{Target: t, Parallel: *connections, WarmUp: *warmUp, Time: *length})
	default:
		err = fmt.Errorf("load: unknown kind %q", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// loadArgs are the arguments of this program for a process of package load.
func loadArgs(kind string, more ...string) []string {
	return append([]string{loadCommand, kind, netip.AddrPortFrom(target.Addr, target.Base).String()}, more...)
}

// self is this program's file, also when it was replaced meanwhile.
const self = "/proc/self/exe"

// loadPatience is what a client may take beyond its time before it is killed.
const loadPatience = 20 * time.Second

// loadClient runs a client of package load to its end.
func loadClient(ctx context.Context, ns *testnet.Namespace, kind string, connections, size int, warmUp, length time.Duration) (r load.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, warmUp+length+loadPatience)
	defer cancel()
	out, err := ns.Run(ctx, self, loadArgs(kind, "-connections", strconv.Itoa(connections), "-size", strconv.Itoa(size),
		"-warm-up", warmUp.String(), "-time", length.String())...)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return r, fmt.Errorf("%s: %w: %.200s", kind, err, out)
	}
	if r.Count == 0 {
		return r, fmt.Errorf("%s: none was answered: %s", kind, r.Error)
	}
	return r, nil
}

// idleClient holds connections open.
type idleClient struct {
	process *testnet.Process
	orders  *os.File
	answers *bufio.Reader
	pipe    *os.File
}

func startIdle(ns *testnet.Namespace) (*idleClient, error) {
	in, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answers, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), orders.Close())
	}
	cmd := exec.Command(self, loadArgs("idle")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	p, err := ns.Start(cmd)
	err = errors.Join(err, in.Close(), out.Close())
	if err != nil {
		return nil, errors.Join(err, orders.Close(), answers.Close())
	}
	return &idleClient{process: p, orders: orders, answers: bufio.NewReader(answers), pipe: answers}, nil
}

// open has n connections open in all, or says why not.
func (c *idleClient) open(n int, patience time.Duration) error {
	if _, err := fmt.Fprintln(c.orders, n); err != nil {
		return err
	}
	if err := c.pipe.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	line, err := c.answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("%d flows are not open after %v: %w", n, patience, err)
	}
	if line = strings.TrimSpace(line); line != strconv.Itoa(n) {
		return errors.New(strings.TrimPrefix(line, "error: "))
	}
	return nil
}

// close ends the process, which closes its connections.
func (c *idleClient) close() error {
	err := errors.Join(c.orders.Close(), c.process.Stop(10*time.Second))
	return errors.Join(err, c.pipe.Close())
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/bench/load"
	"github.com/tougw/tougw/test/lab"
)

// contender is one way for the application's packets to reach the server.
// README.md says how to add one.
type contender struct {
	// name heads its column, 12 characters at most, and is its key in
	// results.json.
	name string
	// about says in a few words how it is set up.
	about string
	// kernel is set where the kernel does the work, and there is no process to
	// account for.
	kernel bool
	// install makes the programs available and returns their version. It may
	// be nil. It is called once.
	install func(context.Context, *tools) (version string, err error)
	// start starts both ends in a fresh network and returns them, and anything
	// about them that only shows at run time.
	start func(context.Context, *lab.Lab, *tools) (ends, string, error)
}

// ends are the processes of the gateways, nil where the kernel does the work.
// Their descendants count as theirs.
type ends struct {
	client, gateway *testnet.Process
	// sockets are where profiles of them are to be had.
	sockets []string
	// cleanUp removes what they leave behind outside of their namespaces and
	// of the lab's folder. It may be nil.
	cleanUp func() error
}

// stand is a contender that runs, in a network of its own, with the servers.
type stand struct {
	*lab.Lab
	ends    ends
	details string
}

// startPatience bounds the start of a contender.
const startPatience = 40 * time.Second

// open builds a network, starts the servers and the contender, and sees that
// the application reaches the server. What stands otherwise is taken down.
func (c *contender) open(ctx context.Context, t *tools) (*stand, error) {
	l, err := lab.New(t.tougw, testnet.Options{})
	if err != nil {
		return nil, err
	}
	s := &stand{Lab: l}
	limited, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("not up within %v", startPatience))
	defer cancel()
	err = s.prepare(limited)
	if err == nil {
		s.ends, s.details, err = c.start(limited, l, t)
	}
	if err == nil {
		err = s.check(limited)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// prepare makes the kernel's part alike for all contenders and starts the
// servers.
func (s *stand) prepare(ctx context.Context) error {
	for _, ns := range s.Namespaces() {
		for key, value := range map[string]string{
			// Thousands of connections a second between two addresses.
			"net.ipv4.ip_local_port_range": "10000 65000",
			"net.ipv4.tcp_tw_reuse":        "1",
			"net.core.somaxconn":           "4096",
		} {
			if err := ns.Sysctl(key, value); err != nil {
				return err
			}
		}
	}
	if err := s.IperfServer(ctx, s.Server); err != nil {
		return err
	}
	if _, err := s.Go(s.Server, "load", self, loadArgs("server")...); err != nil {
		return err
	}
	return s.Server.WaitListening(ctx, loadBase+load.Ports-1)
}

// check sees that requests of the application are answered. Nothing but the
// contender leads to the server, so that they cannot go around it.
func (s *stand) check(ctx context.Context) error {
	return testnet.Poll(ctx, func() error {
		if err := s.alive(); err != nil {
			return err
		}
		_, err := loadClient(ctx, s.app(), "requests", 1, requestSize, 0, 50*time.Millisecond)
		return err
	})
}

// alive says which end is not running any more.
func (s *stand) alive() error {
	for _, p := range []*testnet.Process{s.ends.client, s.ends.gateway} {
		if p == nil {
			continue
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended: %v", p.Path, p.Wait())
		default:
		}
	}
	return nil
}

// app is where the measuring clients run.
func (s *stand) app() *testnet.Namespace { return s.Sites[0].App }

// usage of the client gateway and of the gateway, zero where there is no
// process.
func (s *stand) usage() (u [2]lab.Usage, err error) {
	for i, p := range []*testnet.Process{s.ends.client, s.ends.gateway} {
		if p != nil {
			if u[i], err = usageOfTree(p.Cmd.Process.Pid); err != nil {
				return u, err
			}
		}
	}
	return u, nil
}

// setSegmentation switches UDP segmentation offload of all links between the
// two gateways.
func (s *stand) setSegmentation(on bool) error {
	return errors.Join(
		s.Sites[0].Gateway.SetSegmentation("wan0", on), s.Internet.SetSegmentation(s.Sites[0].Link, on),
		s.Internet.SetSegmentation("gw0", on), s.Gateway.SetSegmentation("wan0", on),
	)
}

// close takes everything down, first the ends, while their namespaces are
// there, so that they can clean up.
func (s *stand) close() error {
	for _, p := range []*testnet.Process{s.ends.client, s.ends.gateway} {
		if p != nil {
			// How it ends is not what is measured; thousands of flows take a while.
			_ = p.Stop(30 * time.Second)
		}
	}
	err := errors.Join(s.Lab.Close(), s.RemoveDir())
	if s.ends.cleanUp != nil {
		err = errors.Join(err, s.ends.cleanUp())
	}
	return err
}

// commands runs several commands in a namespace, words separated by spaces.
func commands(ctx context.Context, ns *testnet.Namespace, lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if _, err := ns.Run(ctx, words[0], words[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program outside of all namespaces, in the lab's folder.
func command(ctx context.Context, l *lab.Lab, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = l.Dir
	_, err := outputOf(cmd)
	return err
}

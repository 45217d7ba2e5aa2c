package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// contender is one way for the application's packets to reach the server. To
// add one write a function like plain and name it in run.
type contender struct {
	*lab.Lab
	name, version string
	// client and gateway are the process ids of its two ends, 0 where the
	// kernel does the work.
	client, gateway int
}

// plain routes: what the machine can do.
func plain(ctx context.Context, binary string) (*contender, error) {
	l, err := lab.New(binary, testnet.Options{})
	if err != nil {
		return nil, err
	}
	if err := l.RoutePlain(); err != nil {
		return nil, errors.Join(err, l.Close(), l.RemoveDir())
	}
	return &contender{Lab: l, name: "plain routing", version: "no tunnel, no encryption"}, nil
}

// tougw is the product with the configuration of the demo.
func tougw(ctx context.Context, binary string) (*contender, error) {
	l, err := lab.New(binary, testnet.Options{})
	if err != nil {
		return nil, err
	}
	c := &contender{Lab: l, name: "tougw"}
	err = func() error {
		if err := l.Keygen(ctx, "client", "gateway"); err != nil {
			return err
		}
		gateway, err := l.Start(ctx, l.Gateway, lab.GatewayConfig())
		if err != nil {
			return err
		}
		client, err := l.Start(ctx, l.Sites[0].Gateway, lab.ClientConfig("client"))
		if err != nil {
			return err
		}
		c.client, c.gateway = client.Cmd.Process.Pid, gateway.Cmd.Process.Pid
		if err := client.WaitPeer(ctx, "gateway", "up"); err != nil {
			return err
		}
		status, err := client.Status(ctx)
		if err != nil {
			return err
		}
		c.version = fmt.Sprintf("%s, %s, path MTU %d", status.Version, status.Peers[0].Suite, status.Peers[0].PathMTU)
		return nil
	}()
	if err != nil {
		return nil, errors.Join(err, l.Close(), l.RemoveDir())
	}
	return c, nil
}

// app is where the measuring clients run.
func (c *contender) app() *testnet.Namespace { return c.Sites[0].App }

// echoPort is where the server answers requests with as many bytes.
const echoPort = "7"

// serve starts the servers and sees that the application reaches them.
func (c *contender) serve(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := c.IperfServer(ctx, c.Server); err != nil {
		return err
	}
	l, err := c.Server.Listen("tcp", net.JoinHostPort(testnet.ServerAddr.String(), echoPort))
	if err != nil {
		return err
	}
	// It ends with the process: a namespace outlives its sockets.
	go answer(l)
	return testnet.Poll(ctx, func() error {
		conn, err := c.dialEcho(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		return exchange(conn, make([]byte, requestSize))
	})
}

// answer serves an echo until the listener fails.
func answer(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, requestSize)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				if _, err := conn.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func (c *contender) dialEcho(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.app().Dial(ctx, "tcp", net.JoinHostPort(testnet.ServerAddr.String(), echoPort))
}

// firstLine of a text.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line)
}

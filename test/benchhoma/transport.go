package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/probe"
	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/internal/testnet"
)

// port is where servers listen, with either transport. They answer a request of
// up to maxEcho bytes with itself, a longer one with a byte.
const (
	port    = 4000
	maxEcho = 1000
)

// transport makes callers and servers of a kind. What it made ends with close.
type transport interface {
	// serve answers calls to a host.
	serve(ns *testnet.Namespace) error
	// caller makes up to calls calls at a time from a host.
	caller(ns *testnet.Namespace, calls int, to netip.AddrPort) (probe.Caller, error)
	close() error
}

// homaTransport is Homa on raw sockets.
type homaTransport struct {
	config homa.Config
	nodes  []*rpc.Node
}

func (h *homaTransport) node(ns *testnet.Namespace) (*rpc.Node, error) {
	var conn *rawip.Conn
	err := ns.Do(func() (err error) {
		conn, err = rawip.Open(rawip.Config{})
		return err
	})
	if err != nil {
		return nil, err
	}
	n, err := rpc.NewNode(conn, rpc.Config{Engine: h.config})
	if err == nil {
		h.nodes = append(h.nodes, n)
	}
	return n, err
}

func (h *homaTransport) serve(ns *testnet.Namespace) error {
	n, err := h.node(ns)
	if err != nil {
		return err
	}
	_, err = n.Listen(port, rpc.HandlerFunc(func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		if req.Len() > maxEcho {
			_, err := w.Write([]byte{1})
			return err // what was not read is dropped when it is here
		}
		b, err := req.ReadAll()
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}), rpc.ServeConfig{})
	return err
}

func (h *homaTransport) caller(ns *testnet.Namespace, _ int, _ netip.AddrPort) (probe.Caller, error) {
	return h.node(ns)
}

func (h *homaTransport) close() error {
	var errs []error
	for _, n := range h.nodes {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// tcpTransport is kernel TCP: a connection for each call that is outstanding,
// messages with their length in front.
type tcpTransport struct {
	congestion string
	closers    []io.Closer
	wg         sync.WaitGroup
}

// control sets the congestion control of a socket.
func (t *tcpTransport) control(_, _ string, rc syscall.RawConn) error {
	var err error
	cerr := rc.Control(func(fd uintptr) {
		if err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, t.congestion); err != nil {
			err = fmt.Errorf("congestion control %s: %w", t.congestion, err)
		}
	})
	return errors.Join(cerr, err)
}

func (t *tcpTransport) serve(ns *testnet.Namespace) error {
	lc := net.ListenConfig{Control: t.control}
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		return err
	}
	t.closers = append(t.closers, l)
	t.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			t.wg.Go(func() {
				defer c.Close()
				buf := make([]byte, rpc.MaxMessage)
				for {
					request, err := readMessage(c, buf)
					if err != nil {
						return // the client has ended
					}
					if len(request) > maxEcho {
						request = request[:1]
					}
					if writeMessage(c, request) != nil {
						return
					}
				}
			})
		}
	})
	return nil
}

func (t *tcpTransport) caller(ns *testnet.Namespace, calls int, to netip.AddrPort) (probe.Caller, error) {
	p := &tcpCaller{idle: make(chan *tcpConn, calls)}
	for range calls {
		c, err := ns.DialWith(context.Background(), &net.Dialer{Control: t.control}, "tcp", to.String())
		if err != nil {
			return nil, err
		}
		t.closers = append(t.closers, c)
		p.idle <- &tcpConn{c, make([]byte, rpc.MaxMessage)}
	}
	return p, nil
}

func (t *tcpTransport) close() error {
	var errs []error
	for _, c := range t.closers {
		errs = append(errs, c.Close())
	}
	t.wg.Wait()
	return errors.Join(errs...)
}

type tcpConn struct {
	net.Conn
	buf []byte
}

// tcpCaller is a probe.Caller on connections that exist.
type tcpCaller struct{ idle chan *tcpConn }

// Call sends a request on an idle connection and returns the response, which is
// valid until the next but as many calls as there are connections. The end of ctx
// makes it wait no longer, and the connection is of no use then.
func (p *tcpCaller) Call(ctx context.Context, _ netip.AddrPort, request []byte) ([]byte, error) {
	var c *tcpConn
	select {
	case c = <-p.idle:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(longAgo) }) // closed already: so be it
	defer stop()
	if err := writeMessage(c, request); err != nil {
		return nil, err
	}
	response, err := readMessage(c, c.buf)
	if err != nil {
		return nil, err
	}
	p.idle <- c
	return response, nil
}

// writeMessage sends b with its length in front, in one write.
func writeMessage(w io.Writer, b []byte) error {
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(b)))
	if c, ok := w.(*tcpConn); ok {
		w = c.Conn // vectored writes need the socket itself
	}
	_, err := (&net.Buffers{length[:], b}).WriteTo(w)
	return err
}

// readMessage reads a message into buf.
func readMessage(r io.Reader, buf []byte) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if int(n) > len(buf) {
		return nil, fmt.Errorf("message of %d bytes", n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}

package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/tougw/tougw/tcpip"
	"github.com/tougw/tougw/tcpip/tcptest"
)

// connPair returns a conn and the connection of the application at its other end.
func connPair(t *testing.T) (c *conn, app *tcptest.Conn) {
	dev, host := tcptest.NewPair(tcptest.Config{})
	streams := make(chan *tcpip.Stream, 1)
	edge, err := tcpip.NewEdge(tcpip.EdgeConfig{
		OnFlow: func(p *tcpip.Pending) {
			s, err := p.Accept(context.Background())
			if err != nil {
				t.Error(err)
			}
			streams <- s
		},
		MaxPending: 1, MaxPendingPerSource: 1,
	}, dev)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- edge.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		host.Close()
		dev.Close()
		<-done
	})
	app, err = host.Dial(ctx, netip.MustParseAddrPort("198.51.100.9:80"))
	if err != nil {
		t.Fatal(err)
	}
	s := <-streams
	if s == nil {
		t.FailNow()
	}
	c = newConn(s, s.Local(), s.Remote())
	t.Cleanup(func() {
		c.Close()
		app.Close()
	})
	return c, app
}

// TestConn holds conn against what is asked of every net.Conn.
func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		c, app := connPair(t)
		return c, app, func() { c.Close(); app.Close() }, nil
	})
}

// TestConnEnds ends connections in every way.
func TestConnEnds(t *testing.T) {
	t.Run("half-close", func(t *testing.T) {
		c, app := connPair(t)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write behind it: %v", err)
		}
		if b, err := io.ReadAll(app); len(b) > 0 || err != nil {
			t.Errorf("application reads %q, %v", b, err)
		}
		if _, err := app.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		app.Close()
		if b, err := io.ReadAll(c); string(b) != "late" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
	t.Run("close", func(t *testing.T) {
		c, app := connPair(t)
		if _, err := c.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(app); string(b) != "last words" || err != nil {
			t.Errorf("application reads %q, %v", b, err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		c, app := connPair(t)
		reads := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			reads <- err
		}()
		c.Reset()
		if err := <-reads; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		if _, err := io.ReadAll(app); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("application: %v", err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	t.Run("reset by the application", func(t *testing.T) {
		c, app := connPair(t)
		app.Reset()
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
	})
}

// TestDeadlineMoves moves a deadline while a call waits for it.
func TestDeadlineMoves(t *testing.T) {
	c, _ := connPair(t)
	read := func() error {
		_, err := c.Read(make([]byte, 1))
		return err
	}
	c.SetReadDeadline(time.Now().Add(time.Hour))
	done := make(chan error, 1)
	go func() { done <- read() }()
	c.SetReadDeadline(time.Unix(1, 0))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline that is moved to the past: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	go func() { done <- read() }()
	c.SetDeadline(time.Now().Add(time.Millisecond))
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline that is set later: %v", err)
	}
	c.SetWriteDeadline(time.Unix(1, 0))
	if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	c.SetDeadline(time.Now().Add(time.Hour))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("write with time left: %v", err)
	}
}

package bridge

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// half-closable net.Pipe: CloseWrite is not passed on, only noted.
type pipe struct {
	net.Conn
	fin chan struct{}
}

func (p *pipe) CloseWrite() error {
	close(p.fin)
	return nil
}

// events collects what a stream reports.
type events chan struct{ readable, writable, failed bool }

func (e events) notify(readable, writable, failed bool) {
	e <- struct{ readable, writable, failed bool }{readable, writable, failed}
}

func TestConnStream(t *testing.T) {
	near, far := net.Pipe()
	p := &pipe{near, make(chan struct{})}
	s := NewConnStream(p)
	ev := make(events, 16)
	s.SetNotify(ev.notify)
	buf := make([]byte, 100)

	if _, err := s.Read(buf); err != syscall.EAGAIN {
		t.Errorf("empty: %v", err)
	}
	far.Write([]byte("hello"))
	if e := <-ev; !e.readable || e.failed {
		t.Errorf("%+v", e)
	}
	for _, want := range []string{"hel", "lo"} {
		if n, err := s.Read(buf[:3]); string(buf[:n]) != want || err != nil {
			t.Errorf("%q, %v", buf[:n], err)
		}
	}

	// More than the stream takes at once: the rest waits for the reader.
	big := strings.Repeat("x", 100<<10)
	n, err := s.Write([]byte(big))
	if n != 64<<10 || err != syscall.EAGAIN || s.Outstanding() != n {
		t.Errorf("%d, %v, outstanding %d", n, err, s.Outstanding())
	}
	if n, err := s.Write([]byte("x")); n != 0 || err != syscall.EAGAIN {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := io.ReadFull(far, make([]byte, n)); err != nil {
		t.Error(err)
	}
	if e := <-ev; !e.writable || e.readable {
		t.Errorf("%+v", e)
	}
	if n, err := s.Write([]byte("last")); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := s.Write(nil); n != 0 || err != nil && err != syscall.EAGAIN {
		t.Errorf("%d, %v", n, err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Error(err)
	}
	select {
	case <-p.fin:
		t.Error("FIN before the data")
	default:
	}
	io.ReadFull(far, buf[:4])
	<-p.fin
	if _, err := s.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	far.Close()
	if e := <-ev; !e.readable {
		t.Errorf("%+v", e)
	}
	for range 2 {
		if _, err := s.Read(buf); err != io.EOF {
			t.Error(err)
		}
	}
	s.SetBuffers(1, 1)
	s.SetKeepalive(time.Second, time.Second, 1)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := near.Read(buf); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("not closed: %v", err)
	}
	s.Reset()
	if _, err := s.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := s.CloseWrite(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if s.Outstanding() != 0 {
		t.Error("outstanding after Close")
	}
}

func TestConnStreamClosesAfterItsData(t *testing.T) {
	near, far := net.Pipe()
	s := NewConnStream(&pipe{near, make(chan struct{})})
	s.Write([]byte("last"))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	got, err := io.ReadAll(far)
	if string(got) != "last" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// broken is a connection on which writing fails; reading waits for the close.
type broken struct {
	net.Conn
	err error
}

func (b *broken) Write([]byte) (int, error) { return 0, b.err }
func (b *broken) CloseWrite() error         { return b.err }

func TestConnStreamFails(t *testing.T) {
	for in, want := range map[error]error{
		&net.OpError{Err: syscall.EPIPE}:      syscall.ECONNRESET,
		&net.OpError{Err: syscall.ECONNRESET}: syscall.ECONNRESET,
		&net.OpError{Err: syscall.ETIMEDOUT}:  syscall.ETIMEDOUT,
		io.ErrClosedPipe:                      io.ErrClosedPipe,
	} {
		near, far := net.Pipe()
		s := NewConnStream(&broken{near, in})
		ev := make(events, 16)
		s.SetNotify(ev.notify)
		if in == io.ErrClosedPipe {
			s.CloseWrite() // fails as well
		} else {
			s.Write([]byte("x"))
		}
		if e := <-ev; !e.failed {
			t.Errorf("%+v", e)
		}
		if err := s.Err(); err != want {
			t.Errorf("%v, want %v", err, want)
		}
		if _, err := s.Write([]byte("x")); err == nil {
			t.Error("write succeeds")
		}
		if err := s.CloseWrite(); err != want {
			t.Errorf("%v, want %v", err, want)
		}
		if _, err := s.Read(make([]byte, 1)); err != syscall.EAGAIN {
			t.Errorf("read of what may still come: %v", err)
		}
		if s.Outstanding() != 0 {
			t.Error("outstanding after a failure")
		}
		s.Reset()
		far.Close()
	}
}

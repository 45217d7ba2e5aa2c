package bridge

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// failer is what a fake needs of a test; *rapid.T has it as well.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
}

// fake is a scripted end of a flow: the test plays the program behind it. It
// checks that the bridge keeps the contract of Stream.
type fake struct {
	writeSize int // what WriteSize says
	t         failer
	name      string

	reading, writing atomic.Int32 // calls under way

	mu       sync.Mutex
	in       []byte // sent by the program, not yet read
	inEnd    error  // io.EOF or failure, after in
	failure  error  // as inEnd, but for Err: set at once
	out      []byte // received by the program
	room     int    // how much more Write takes; -1: without bound
	held     bool   // acknowledgements are held back
	unacked  int
	full     bool // a Write returned EAGAIN
	fin      bool // CloseWrite was called
	closed   bool
	reset    bool
	reads    int // calls of Read
	recv     []int
	send     []int
	keep     [3]int64
	chunk    int           // most bytes a Read returns; 0: no bound
	released time.Duration // since made, when Close or Reset was called
	made     time.Time

	nmu    sync.Mutex
	notify func(readable, writable, failed bool)
}

func newFake(t failer, name string) *fake {
	return &fake{t: t, name: name, room: -1, made: time.Now()}
}

// What the program does.

func (s *fake) says(p string) {
	s.mu.Lock()
	s.in = append(s.in, p...)
	s.mu.Unlock()
	s.tell(true, false, false)
}

func (s *fake) sendsFIN() {
	s.mu.Lock()
	s.inEnd = io.EOF
	s.mu.Unlock()
	s.tell(true, false, false)
}

func (s *fake) fails(err error) {
	s.mu.Lock()
	if s.inEnd == nil {
		s.inEnd = err
	}
	s.failure = err
	s.mu.Unlock()
	s.tell(true, true, true)
}

// takes sets how many more bytes the program reads; -1: all.
func (s *fake) takes(n int) {
	s.mu.Lock()
	s.room = n
	room := s.full && n != 0
	if room {
		s.full = false
	}
	s.mu.Unlock()
	if room {
		s.tell(false, true, false)
	}
}

// acks says whether what is written is acknowledged at once.
func (s *fake) acks(now bool) {
	s.mu.Lock()
	s.held = !now
	if now {
		s.unacked = 0
	}
	s.mu.Unlock()
}

func (s *fake) ack(n int) {
	s.mu.Lock()
	s.unacked -= n
	s.mu.Unlock()
}

// What the program sees.

func (s *fake) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.out)
}

func (s *fake) state() (fin, closed, reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fin, s.closed, s.reset
}

// want checks how the bridge has ended the stream so far: "", "fin",
// "closed" (with FIN before), or "reset", or "fin reset".
func (s *fake) want(how string) {
	s.t.Helper()
	fin, closed, reset := s.state()
	got := ""
	switch {
	case reset && fin:
		got = "fin reset"
	case reset:
		got = "reset"
	case closed && !fin:
		got = "closed without fin"
	case closed:
		got = "closed"
	case fin:
		got = "fin"
	}
	if got != how {
		s.t.Errorf("%s: ended %q, want %q", s.name, got, how)
	}
}

func (s *fake) wantGot(want string) {
	s.t.Helper()
	if got := s.got(); got != want {
		s.t.Errorf("%s: got %q, want %q", s.name, short(got), short(want))
	}
}

func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

func (s *fake) tell(readable, writable, failed bool) {
	s.nmu.Lock()
	defer s.nmu.Unlock()
	if s.notify != nil {
		s.notify(readable, writable, failed)
	}
}

// The Stream.

func (s *fake) Read(p []byte) (int, error) {
	if s.reading.Add(1) != 1 {
		s.t.Errorf("%s: two calls of Read at a time", s.name)
	}
	defer s.reading.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	switch {
	case s.closed || s.reset:
		return 0, net.ErrClosed
	case len(s.in) > 0:
		if s.chunk > 0 && len(p) > s.chunk {
			p = p[:s.chunk]
		}
		n := copy(p, s.in)
		s.in = s.in[n:]
		return n, nil
	case s.inEnd != nil:
		return 0, s.inEnd
	}
	return 0, syscall.EAGAIN
}

func (s *fake) Write(p []byte) (int, error) {
	if s.writing.Add(1) != 1 {
		s.t.Errorf("%s: two calls of Write at a time", s.name)
	}
	defer s.writing.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.reset:
		return 0, net.ErrClosed
	case s.fin:
		s.t.Errorf("%s: Write after CloseWrite", s.name)
		return 0, syscall.EPIPE
	case s.failure != nil:
		return 0, syscall.EPIPE
	}
	n := len(p)
	if s.room >= 0 {
		n = min(n, s.room)
		s.room -= n
	}
	s.out = append(s.out, p[:n]...)
	if s.held {
		s.unacked += n
	}
	if n < len(p) {
		s.full = true
		return n, syscall.EAGAIN
	}
	return n, nil
}

func (s *fake) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.reset:
		return net.ErrClosed
	case s.fin:
		s.t.Errorf("%s: CloseWrite twice", s.name)
	case s.failure != nil:
		return syscall.EPIPE
	}
	s.fin = true
	if s.held {
		s.unacked++
	}
	return nil
}

// unwatched checks that no call can come after the release.
func (s *fake) unwatched() {
	s.nmu.Lock()
	defer s.nmu.Unlock()
	if s.notify != nil {
		s.t.Errorf("%s: released and still watched", s.name)
	}
}

func (s *fake) Reset() {
	s.unwatched()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.reset {
		s.t.Errorf("%s: Reset of a released stream", s.name)
	}
	s.reset = true
	s.released = time.Since(s.made)
}

func (s *fake) Close() error {
	s.unwatched()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.reset {
		s.t.Errorf("%s: Close of a released stream", s.name)
	}
	if len(s.in) > 0 {
		s.t.Errorf("%s: Close with %d bytes unread", s.name, len(s.in))
	}
	s.closed = true
	s.released = time.Since(s.made)
	return nil
}

func (s *fake) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

func (s *fake) Outstanding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return 0
	}
	return s.unacked
}

func (s *fake) SetNotify(fn func(readable, writable, failed bool)) {
	s.nmu.Lock()
	s.notify = fn
	s.nmu.Unlock()
}

func (s *fake) SetBuffers(recv, send int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if recv > 0 {
		s.recv = append(s.recv, recv)
	}
	if send > 0 {
		s.send = append(s.send, send)
	}
}

// WriteSize implements Stream.
func (s *fake) WriteSize() int { return s.writeSize }

func (s *fake) SetKeepalive(idle, interval time.Duration, count int) {
	s.mu.Lock()
	s.keep = [3]int64{int64(idle), int64(interval), int64(count)}
	s.mu.Unlock()
}

package bridge

import (
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// poller waits for the events of all sockets of a Dialer with one goroutine and
// one epoll instance. The instance is itself watched by the runtime's poller,
// so that waiting takes no thread.
type poller struct {
	file *os.File // the epoll instance
	turn Turn
	stop chan struct{}
	done chan struct{}
	once sync.Once
	err  error

	mu      sync.Mutex
	sockets map[uint64]*socket // by the number that their events carry
	last    uint64             // numbers are not reused: an event that comes late finds nothing
	closed  bool
}

func newPoller(turn Turn) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{
		file:    os.NewFile(uintptr(fd), "epoll"),
		turn:    turn,
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		sockets: make(map[uint64]*socket),
	}
	conn, err := p.file.SyscallConn()
	if err != nil {
		p.file.Close()
		return nil, err
	}
	go func() {
		defer close(p.done)
		var events [128]unix.EpollEvent
		var found [len(events)]*socket
		// Ends with an error when the file is closed.
		_ = conn.Read(func(fd uintptr) bool {
			for {
				n, err := rawEpollWait(int(fd), events[:])
				if err == unix.EINTR {
					continue
				}
				if n <= 0 {
					return false
				}
				p.dispatch(events[:n], found[:n])
			}
		})
	}()
	return p, nil
}

// dispatch hands each event to its socket. found is scratch space.
func (p *poller) dispatch(events []unix.EpollEvent, found []*socket) {
	p.mu.Lock()
	for i := range events {
		found[i] = p.sockets[eventID(&events[i])]
	}
	p.mu.Unlock()
	p.turn.Begin()
	for i, s := range found {
		if s != nil {
			s.event(events[i].Events)
			p.turn.Step()
		}
	}
	p.turn.End()
	clear(found)
}

// eventID is the number carried in the 64 bits of user data of an event.
func eventID(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Pad))<<32 | uint64(uint32(e.Fd)) }

// add takes the non-blocking socket fd, unless it fails.
func (p *poller) add(fd int) (*socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	p.last++
	s := &socket{p: p, id: p.last, fd: fd}
	ev := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
		Fd:     int32(uint32(s.id)),
		Pad:    int32(uint32(s.id >> 32)),
	}
	// In the table before the first event may come.
	p.sockets[s.id] = s
	if err := p.control(fd, &ev); err != nil {
		delete(p.sockets, s.id)
		return nil, err
	}
	return s, nil
}

func (p *poller) control(fd int, ev *unix.EpollEvent) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var ctlErr error
	if err := conn.Control(func(ep uintptr) { ctlErr = unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, fd, ev) }); err != nil {
		return err
	}
	return os.NewSyscallError("epoll_ctl", ctlErr)
}

// remove forgets s. Its descriptor leaves the epoll instance by being closed.
func (p *poller) remove(s *socket) {
	p.mu.Lock()
	delete(p.sockets, s.id)
	p.mu.Unlock()
}

func (p *poller) close() error {
	p.once.Do(func() {
		p.mu.Lock()
		p.closed = true
		left := make([]*socket, 0, len(p.sockets))
		for _, s := range p.sockets {
			left = append(left, s)
		}
		p.mu.Unlock()
		close(p.stop)
		p.err = p.file.Close()
		<-p.done
		for _, s := range left {
			s.Reset()
		}
	})
	return p.err
}

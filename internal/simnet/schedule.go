package simnet

import (
	"net/netip"
	"sync"
	"time"
)

// flight is a datagram that arrives later.
type flight struct {
	at       time.Duration // since Net.start
	seq      uint64        // breaks ties in order of sending
	buf      *buffer
	src, dst netip.AddrPort
	dir      *direction
	ordered  bool // counted in dir.flying
}

func (f *flight) before(g *flight) bool {
	return f.at < g.at || f.at == g.at && f.seq < g.seq
}

// scheduler holds what arrives later in a heap, and one timer for the first of
// it. The timer's function runs only while it delivers: an idle network has no
// goroutine.
type scheduler struct {
	net *Net

	mu      sync.Mutex // held while delivering, so that order is kept
	flights []flight   // heap
	seq     uint64
	timer   *time.Timer
	closed  bool
	// pending counts calls of fire that are due or under way.
	pending sync.WaitGroup
}

func (s *scheduler) add(f flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		f.dropAtClose()
		return
	}
	f.seq = s.seq
	s.seq++
	s.push(f)
	if s.flights[0].seq == f.seq {
		s.arm()
	}
}

// arm sets the timer for the first flight.
func (s *scheduler) arm() {
	wait := s.flights[0].at - time.Since(s.net.start)
	if s.timer == nil {
		s.pending.Add(1)
		s.timer = time.AfterFunc(wait, s.fire)
	} else if !s.timer.Reset(wait) {
		s.pending.Add(1)
	}
}

func (s *scheduler) fire() {
	defer s.pending.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.net.start)
	for len(s.flights) > 0 && s.flights[0].at <= now {
		f := s.pop()
		s.net.deliver(f.buf, f.src, f.dst, &f.dir.counters)
		if f.ordered {
			f.dir.flying.Add(-1)
		}
	}
	if len(s.flights) > 0 {
		s.arm()
	}
}

func (s *scheduler) close() {
	s.mu.Lock()
	s.closed = true
	for i := range s.flights {
		s.flights[i].dropAtClose()
	}
	s.flights = nil
	if s.timer != nil && s.timer.Stop() {
		s.pending.Done()
	}
	s.mu.Unlock()
	s.pending.Wait()
}

// inFlight counts the flights that chosen selects.
func (s *scheduler) inFlight(chosen func(*direction) bool) (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.flights {
		if chosen(s.flights[i].dir) {
			n++
		}
	}
	return n
}

func (f *flight) dropAtClose() {
	f.dir.noSocket.Add(1)
	f.buf.release()
}

// push and pop keep a binary heap by hand: container/heap would allocate for
// each datagram.
func (s *scheduler) push(f flight) {
	s.flights = append(s.flights, f)
	h := s.flights
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(&h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (s *scheduler) pop() flight {
	h := s.flights
	first, last := h[0], len(h)-1
	h[0] = h[last]
	h[last] = flight{}
	h = h[:last]
	s.flights = h
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if h[c].before(&h[least]) {
				least = c
			}
		}
		if least == i {
			return first
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}

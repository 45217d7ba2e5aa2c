package gue

import (
	"fmt"
	"math/bits"
	"net/netip"
	"time"
)

// Defaults of ReassemblerConfig. The timeout is the draft's (extensions-06
// §5.5); the limits are ours.
const (
	DefaultReassemblyTimeout = 60 * time.Second
	DefaultMaxPackets        = 256
	DefaultMaxPerSource      = 32
	DefaultMaxBytes          = 4 << 20

	// minReassemblyBuffer is what the draft says suffices for 1500 bytes.
	minReassemblyBuffer = 2048
	maxUnits            = (MaxPacket + FragmentUnit - 1) / FragmentUnit
)

// ReassemblerConfig bounds a Reassembler. The zero value is usable.
type ReassemblerConfig struct {
	// Timeout is how long after its first fragment an unfinished packet is
	// discarded; 0 means DefaultReassemblyTimeout.
	Timeout time.Duration
	// MaxPacket is the largest packet in bytes, 1500 to 65535; 0 means 65535.
	MaxPacket int
	// MinFirst is how many bytes a first fragment must have unless it is the
	// last, so that it holds the transport header; 0 means any number.
	MinFirst int
	// MaxPackets is how many packets may be unfinished at a time; 0 means
	// DefaultMaxPackets.
	MaxPackets int
	// MaxPerSource is how many of them may be from one source address, so
	// that one cannot keep out the others; 0 means DefaultMaxPerSource.
	MaxPerSource int
	// MaxBytes bounds the buffers, in bytes; 0 means DefaultMaxBytes.
	MaxBytes int
}

// FragmentKey tells packets apart (extensions-06 §5.5). The session
// identifiers are our addition: fragments of two sessions never join.
type FragmentKey struct {
	// Src and Dst are the outer addresses and ports.
	Src, Dst netip.AddrPort
	// HasGroup says that there is a Group.
	HasGroup bool
	Group    uint32
	// Source and Destination are session identifiers, or zero.
	Source, Destination uint64
	Control             bool
	OrigProto           Protocol
	ID                  uint64
}

// Piece is a fragment that arrived.
type Piece struct {
	Key FragmentKey
	// ProtoCtype is the protocol or control type of this fragment, after a
	// transform was reversed.
	ProtoCtype Protocol
	// Fragment is the field; its OrigProto and ID are those of the key.
	Fragment Fragment
	// ECN is the codepoint of this fragment's outer header.
	ECN ECN
	// Data is the fragment's payload; borrowed.
	Data []byte
}

// Reassembler joins fragments (extensions-06 §5.5) within fixed bounds. It has
// no clock: the time is given to it and must not run backwards. It is not safe
// for concurrent use.
type Reassembler struct {
	cfg    ReassemblerConfig
	byKey  map[FragmentKey]*reassembly
	oldest *reassembly // a doubly linked list in order of expiry
	newest *reassembly
	free   *reassembly // linked by next
	done   *reassembly // given to the caller, free at the next call
	bytes  int         // capacity of all buffers, free ones too
}

// reassembly is one unfinished packet.
type reassembly struct {
	key        FragmentKey
	expires    time.Time
	prev, next *reassembly

	buf   []byte
	seen  [(maxUnits + 63) / 64]uint64 // a bit for each unit held
	units int                          // how many are held
	end   int                          // where the furthest held fragment ends
	total int                          // length of the packet, 0 when unknown
	first ECN                          // of the first fragment
	ce    bool                         // congestion on any fragment
}

// NewReassembler returns an empty reassembler. The error says which value of
// the configuration is out of range.
func NewReassembler(cfg ReassemblerConfig) (*Reassembler, error) {
	defaults := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	defaults(&cfg.MaxPacket, MaxPacket)
	defaults(&cfg.MaxPackets, DefaultMaxPackets)
	defaults(&cfg.MaxPerSource, DefaultMaxPerSource)
	defaults(&cfg.MaxBytes, DefaultMaxBytes)
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultReassemblyTimeout
	}
	switch {
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("gue: reassembly timeout %v is negative", cfg.Timeout)
	case cfg.MaxPacket < 1500 || cfg.MaxPacket > MaxPacket:
		return nil, fmt.Errorf("gue: largest packet %d bytes, not 1500 to %d", cfg.MaxPacket, MaxPacket)
	case cfg.MinFirst < 0 || cfg.MaxPackets < 0 || cfg.MaxPerSource < 0:
		return nil, fmt.Errorf("gue: negative reassembly limit")
	case cfg.MaxBytes < minReassemblyBuffer:
		return nil, fmt.Errorf("gue: %d bytes for reassembly, less than %d", cfg.MaxBytes, minReassemblyBuffer)
	}
	return &Reassembler{cfg: cfg, byKey: make(map[FragmentKey]*reassembly)}, nil
}

// Add takes in a fragment. When it completes a packet, Add returns the packet,
// which the caller borrows until the next call of any method, and the
// congestion codepoint of its fragments together (RFC 3168 §5.3). A fragment
// that is held gives no packet and DropNone. A packet of a single fragment is
// part of p.Data. Of two fragments that overlap, the later is dropped.
func (r *Reassembler) Add(now time.Time, p *Piece) (packet []byte, ecn ECN, drop Drop) {
	r.Expire(now)
	if drop := r.check(p); drop != DropNone {
		return nil, 0, drop
	}
	if p.Fragment.Offset == 0 && !p.Fragment.More { // whole: RFC 6946 reasons alike
		return p.Data, p.ECN, DropNone
	}
	a := r.byKey[p.Key]
	start := int(p.Fragment.Offset) * FragmentUnit
	end := start + len(p.Data)
	if a != nil {
		if drop := a.fits(p.Fragment.More, start, end); drop != DropNone {
			return nil, 0, drop
		}
	} else if a = r.start(now, p.Key); a == nil {
		return nil, 0, DropFragmentLimit
	}
	if !r.grow(a, end) {
		if a.units == 0 {
			r.discard(a)
		}
		return nil, 0, DropFragmentLimit
	}
	copy(a.buf[start:], p.Data)
	a.mark(start, end)
	a.end = max(a.end, end)
	if !p.Fragment.More {
		a.total = end
	}
	if start == 0 {
		a.first = p.ECN
	}
	a.ce = a.ce || p.ECN == CE
	if a.total == 0 || a.units*FragmentUnit < a.total {
		return nil, 0, DropNone
	}
	r.unlink(a)
	r.done = a
	if ecn = a.first; a.ce {
		ecn = CE
	}
	return a.buf[:a.total], ecn, DropNone
}

// check applies the rules that need no other fragment.
func (r *Reassembler) check(p *Piece) Drop {
	f := &p.Fragment
	want := f.OrigProto
	if f.Offset > 0 {
		want = none(p.Key.Control)
	}
	end := int(f.Offset)*FragmentUnit + len(p.Data)
	switch {
	case f.Reserved != 0:
		return DropFragmentReserved
	case p.ProtoCtype != want:
		return DropFragmentProto
	case len(p.Data) == 0, f.More && len(p.Data)%FragmentUnit != 0:
		return DropFragmentLength
	case end > r.cfg.MaxPacket:
		return DropFragmentSize
	case f.Offset == 0 && f.More && len(p.Data) < r.cfg.MinFirst:
		return DropFragmentFirst
	}
	return DropNone
}

// fits applies the rules about the fragments that are held.
func (a *reassembly) fits(more bool, start, end int) Drop {
	switch {
	case a.overlaps(start, end):
		return DropFragmentOverlap
	case a.total != 0 && (!more || end > a.total):
		return DropFragmentEnd
	case !more && end < a.end:
		return DropFragmentEnd
	}
	return DropNone
}

// unitMask returns the bits of word w that stand for the units from to to-1.
func unitMask(w, from, to int) uint64 {
	lo, hi := max(from-w*64, 0), min(to-w*64, 64)
	return ^uint64(0) << lo & (^uint64(0) >> (64 - hi))
}

func unitRange(start, end int) (from, to int) {
	return start / FragmentUnit, (end + FragmentUnit - 1) / FragmentUnit
}

func (a *reassembly) overlaps(start, end int) bool {
	from, to := unitRange(start, end)
	for w := from / 64; w*64 < to; w++ {
		if a.seen[w]&unitMask(w, from, to) != 0 {
			return true
		}
	}
	return false
}

func (a *reassembly) mark(start, end int) {
	from, to := unitRange(start, end)
	for w := from / 64; w*64 < to; w++ {
		a.seen[w] |= unitMask(w, from, to)
	}
	a.units += to - from
}

// start makes an unfinished packet, or nil if there are too many.
func (r *Reassembler) start(now time.Time, key FragmentKey) *reassembly {
	if len(r.byKey) >= r.cfg.MaxPackets {
		return nil
	}
	same := 0
	for a := r.oldest; a != nil; a = a.next {
		if a.key.Src.Addr() == key.Src.Addr() {
			same++
		}
	}
	if same >= r.cfg.MaxPerSource {
		return nil
	}
	a := r.free
	if a != nil {
		r.free = a.next
		*a = reassembly{buf: a.buf}
	} else {
		a = new(reassembly)
	}
	a.key, a.expires = key, now.Add(r.cfg.Timeout)
	r.byKey[key] = a
	if a.prev = r.newest; a.prev != nil {
		a.prev.next = a
	} else {
		r.oldest = a
	}
	r.newest = a
	return a
}

// grow makes room for n bytes, or reports false if memory is used up.
func (r *Reassembler) grow(a *reassembly, n int) bool {
	if n <= len(a.buf) {
		return true
	}
	size := max(minReassemblyBuffer, 1<<bits.Len(uint(n-1)))
	if r.bytes-len(a.buf)+size > r.cfg.MaxBytes {
		for f := r.free; f != nil; f = f.next {
			r.bytes -= len(f.buf)
			f.buf = nil
		}
		if r.bytes-len(a.buf)+size > r.cfg.MaxBytes {
			return false
		}
	}
	buf := make([]byte, size)
	copy(buf, a.buf[:min(a.end, len(a.buf))])
	r.bytes += size - len(a.buf)
	a.buf = buf
	return true
}

// unlink removes a from the map and the list.
func (r *Reassembler) unlink(a *reassembly) {
	delete(r.byKey, a.key)
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		r.oldest = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	} else {
		r.newest = a.prev
	}
	a.prev, a.next = nil, nil
}

func (r *Reassembler) discard(a *reassembly) {
	r.unlink(a)
	a.next, r.free = r.free, a
}

// Expire discards the packets whose time is over and returns how many.
func (r *Reassembler) Expire(now time.Time) int {
	if a := r.done; a != nil {
		r.done = nil
		a.next, r.free = r.free, a
	}
	n := 0
	for r.oldest != nil && !now.Before(r.oldest.expires) {
		r.discard(r.oldest)
		n++
	}
	return n
}

// Deadline returns when Expire will next have something to do, and false if
// no packet is unfinished.
func (r *Reassembler) Deadline() (time.Time, bool) {
	if r.oldest == nil {
		return time.Time{}, false
	}
	return r.oldest.expires, true
}

// Pending returns the number of unfinished packets.
func (r *Reassembler) Pending() int { return len(r.byKey) }

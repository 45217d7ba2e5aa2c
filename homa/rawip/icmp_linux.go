package rawip

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/mmsg"
)

const (
	// maxQuoted is how much of a refused packet an ICMP error quotes, so that the
	// error has at most 576 bytes (RFC 1812 section 4.3.2.3).
	maxQuoted = 576 - 20 - 8 - 20
	// refusalBurst is how many refusals may leave at once; the kernel's value for
	// all its ICMP errors (net.ipv4.icmp_msgs_burst).
	refusalBurst = 50
	// icmpFilter is ICMP_FILTER and ICMPV6_FILTER; solRaw is SOL_RAW.
	icmpFilter = 1
	solRaw     = 255
)

// icmpSocket sends ICMP errors of one family and receives nothing.
type icmpSocket struct {
	v6   bool
	file *os.File
}

func newICMPSocket(v6 bool, device string, mark uint32) (*icmpSocket, error) {
	protocol := unix.IPPROTO_ICMP
	if v6 {
		protocol = unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(familyOf(v6), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	if err := setupICMP(fd, v6, device, mark); err != nil {
		_ = unix.Close(fd) // nothing was sent
		return nil, err
	}
	return &icmpSocket{v6: v6, file: os.NewFile(uintptr(fd), "homa-icmp")}, nil
}

// setupICMP sets the options of a new socket; its filter blocks every type.
func setupICMP(fd int, v6 bool, device string, mark uint32) error {
	block := [8]uint32{0: 1<<32 - 1, 1: 1<<32 - 1, 2: 1<<32 - 1, 3: 1<<32 - 1, 4: 1<<32 - 1, 5: 1<<32 - 1, 6: 1<<32 - 1, 7: 1<<32 - 1}
	level, size := solRaw, 4
	if v6 {
		level, size = unix.IPPROTO_ICMPV6, len(block)*4
	}
	filter := unsafe.Slice((*byte)(unsafe.Pointer(&block)), size)
	if err := unix.SetsockoptString(fd, level, icmpFilter, string(filter)); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	return setCommon(fd, device, mark)
}

func (i *icmpSocket) close() error { return i.file.Close() }

// send sends message to peer from local, or reports that it could not.
func (i *icmpSocket) send(message []byte, peer, local netip.Addr, zones *mmsg.Zones) bool {
	var control [(mmsg.SpaceInfo6 + 7) / 8]uint64
	oob := unsafe.Slice((*byte)(unsafe.Pointer(&control)), unsafe.Sizeof(control))
	oob = oob[:mmsg.PutSource(oob, local, i.v6, zones)]
	rc, err := i.file.SyscallConn()
	if err != nil {
		return false
	}
	cerr := rc.Control(func(fd uintptr) {
		_, err = unix.SendmsgN(int(fd), message, oob, sockaddr(peer, zones), unix.MSG_DONTWAIT)
	})
	return cerr == nil && err == nil
}

// refuser limits the rate of refusals: a token bucket.
type refuser struct {
	rate   float64 // tokens in a second
	mu     sync.Mutex
	tokens float64
	last   time.Time
}

func (r *refuser) init(rate int) {
	r.rate = float64(max(rate, 0))
	r.tokens = min(r.rate, refusalBurst)
}

// allow takes a token.
func (r *refuser) allow(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.IsZero() {
		r.tokens = min(r.tokens+now.Sub(r.last).Seconds()*r.rate, refusalBurst)
	}
	r.last = now
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}

// Refuse answers p with ICMP or ICMPv6 "port unreachable". Linux hosts then fail
// their RPCs with that port at once. Nothing is sent when p did not come from
// and to single hosts, when another process serves the port by now, or over
// Config.RefusalRate.
func (c *Conn) Refuse(p *carrier.Packet) {
	s := c.socketOf(p.Addr)
	if s == nil || p.Addr.IsMulticast() || p.Addr.IsUnspecified() || !p.Local.IsValid() || p.Local.IsMulticast() {
		return
	}
	sent := c.refuser.allow(time.Now()) && !c.foreign(p) && s.icmp.send(portUnreachable(p, c.cfg.Protocol), p.Addr, p.Local, &c.zones)
	if sent {
		c.stats.refusals.Add(1)
	} else {
		c.stats.refusalsSuppressed.Add(1)
	}
}

// foreign reports whether a packet is for another process.
func (c *Conn) foreign(p *carrier.Packet) bool {
	return len(p.Data) >= smallest && c.Foreign(binary.BigEndian.Uint16(p.Data[offsetDstPort:]))
}

// portUnreachable builds the ICMP error about p. The IP header that it quotes is
// rebuilt: of it, receivers look at the addresses and the protocol.
func portUnreachable(p *carrier.Packet, protocol uint8) []byte {
	quoted := p.Data[:min(len(p.Data), maxQuoted)]
	src, dst := p.Addr.Unmap(), p.Local.Unmap()
	m := make([]byte, 8, 8+40+len(quoted))
	if src.Is6() {
		m[0], m[1] = icmp6Unreachable, icmp6PortUnreachable
		m = append(m, 6<<4, 0, 0, 0)
		m = binary.BigEndian.AppendUint16(m, uint16(len(p.Data)))
		m = append(m, protocol, 64)
		m = append(append(m, src.AsSlice()...), dst.AsSlice()...)
		return append(m, quoted...) // the kernel fills in the checksum
	}
	m[0], m[1] = icmpUnreachable, icmpPortUnreachable
	m = append(m, 4<<4|5, 0)
	m = binary.BigEndian.AppendUint16(m, uint16(20+len(p.Data)))
	m = append(m, 0, 0, 0x40, 0, 64, protocol, 0, 0)
	m = append(append(m, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(m[8+10:], checksum(m[8:]))
	m = append(m, quoted...)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

// checksum is the Internet checksum of b (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

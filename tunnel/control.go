package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// Control messages travel in GUE control packets of type 255 behind the ExID
// of the gue package. Each packet carries one message:
//
//	 0                   1                   2                   3
//	+-------+-------+---------------+
//	|version| type  |    length     |  body of length bytes
//	+-------+-------+---------------+
//
// A message of an unknown type or a higher version is skipped and counted; a
// body longer than its type needs is accepted, and the rest of it ignored, so
// that fields can be added at the end.
const (
	controlVersion = 1
	controlHeader  = 4
	// controlMax bounds what this side sends and reads, in bytes with header.
	controlMax = 64

	// protocolVersion is the only version of the TOU profile so far.
	protocolVersion = 1
)

type controlType uint8

const (
	ctlHello       controlType = 1
	ctlEchoRequest controlType = 2
	ctlEchoReply   controlType = 3
	ctlPathProbe   controlType = 4
	ctlRefused     controlType = 5
	ctlDrain       controlType = 6
	ctlPathReply   controlType = 7
	ctlUnknown     controlType = 8
	ctlCallRefused controlType = 9
)

var (
	errControlShort   = errors.New("tunnel: control message cut short")
	errControlUnknown = errors.New("tunnel: control message of unknown type or version")
)

// control is one control message, decoded. Only the fields of its type are set.
type control struct {
	typ     controlType
	hello   hello
	token   uint64 // echo, path probe
	session uint64 // refused: the initiator's session id; unknown: what stood there as destination
	reason  refusal
	seconds uint16 // drain
}

// hello opens an association: 28 bytes.
type hello struct {
	reply        bool // the sender has not seen the receiver's hello yet
	low, high    uint8
	capabilities uint32
	instance     InstanceID
	pathMTU      uint16 // largest outer packet in bytes that the sender's path is set to carry; 0 unknown
}

const (
	helloLen   = 28
	echoLen    = 8
	refusedLen = 12
	drainLen   = 2
	unknownLen = 8

	helloFlagReply = 0x01

	// capNoChecksum: the sender takes segments without a transport checksum.
	capNoChecksum = 1 << 0
)

// append adds the message in wire form to b, without the GUE header and ExID.
func (c *control) append(b []byte) []byte {
	b = append(b, controlVersion, byte(c.typ), 0, 0)
	start := len(b)
	switch c.typ {
	case ctlHello:
		var flags byte
		if c.hello.reply {
			flags |= helloFlagReply
		}
		b = append(b, flags, c.hello.low, c.hello.high, 0)
		b = binary.BigEndian.AppendUint32(b, c.hello.capabilities)
		b = append(b, c.hello.instance[:]...)
		b = binary.BigEndian.AppendUint16(b, c.hello.pathMTU)
		b = append(b, 0, 0)
	case ctlEchoRequest, ctlEchoReply, ctlPathProbe, ctlPathReply:
		b = binary.BigEndian.AppendUint64(b, c.token)
	case ctlRefused, ctlCallRefused:
		b = binary.BigEndian.AppendUint64(b, c.session)
		b = append(b, byte(c.reason), 0, 0, 0)
	case ctlDrain:
		b = binary.BigEndian.AppendUint16(b, c.seconds)
	case ctlUnknown:
		b = binary.BigEndian.AppendUint64(b, c.session)
	}
	binary.BigEndian.PutUint16(b[start-2:], uint16(len(b)-start))
	return b
}

// decode reads one message and sets every field of c. It borrows b.
func (c *control) decode(b []byte) error {
	*c = control{}
	if len(b) < controlHeader {
		return errControlShort
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if b[0] != controlVersion {
		return errControlUnknown
	}
	if len(b)-controlHeader < n {
		return errControlShort
	}
	c.typ = controlType(b[1])
	b = b[controlHeader : controlHeader+n]
	var need int
	switch c.typ {
	case ctlHello:
		need = helloLen
	case ctlEchoRequest, ctlEchoReply, ctlPathProbe, ctlPathReply:
		need = echoLen
	case ctlRefused, ctlCallRefused:
		need = refusedLen
	case ctlDrain:
		need = drainLen
	case ctlUnknown:
		need = unknownLen
	default:
		return errControlUnknown
	}
	if len(b) < need {
		return errControlShort
	}
	switch c.typ {
	case ctlHello:
		c.hello = hello{
			reply: b[0]&helloFlagReply != 0, low: b[1], high: b[2],
			capabilities: binary.BigEndian.Uint32(b[4:]),
			instance:     InstanceID(b[8:24]),
			pathMTU:      binary.BigEndian.Uint16(b[24:]),
		}
	case ctlEchoRequest, ctlEchoReply, ctlPathProbe, ctlPathReply:
		c.token = binary.BigEndian.Uint64(b)
	case ctlRefused, ctlCallRefused:
		c.session, c.reason = binary.BigEndian.Uint64(b), refusal(b[8])
	case ctlDrain:
		c.seconds = binary.BigEndian.Uint16(b)
	case ctlUnknown:
		c.session = binary.BigEndian.Uint64(b)
	}
	return nil
}

// refusal is the reason why a session was not opened, as it stands on the wire.
type refusal uint8

const (
	refusedUnspecified  refusal = 0
	refusedConnection   refusal = 1 // the target answered with a reset
	refusedHost         refusal = 2 // host unreachable
	refusedNetwork      refusal = 3 // network unreachable
	refusedProhibited   refusal = 4 // by policy of the refusing gateway
	refusedTimeout      refusal = 5 // the target did not answer
	refusedOverload     refusal = 6 // limit of the refusing gateway
	refusedDraining     refusal = 7 // the refusing gateway is stopping
	refusedName         refusal = 8 // the name does not resolve
	refusedAddressStack refusal = 9 // address family without a route or an address
)

// ErrOverload is the reason of a session that a peer refused for its limits.
// It unwraps to ECONNREFUSED: the caller is told at once.
var ErrOverload = fmt.Errorf("peer is at its limit of sessions: %w", syscall.ECONNREFUSED)

// ErrDraining is the reason of a session that a stopping peer refused. It
// unwraps to ECONNREFUSED.
var ErrDraining = fmt.Errorf("peer is stopping: %w", syscall.ECONNREFUSED)

// ErrName is the reason of a session whose target name does not resolve at the
// peer. It unwraps to EHOSTUNREACH.
var ErrName = fmt.Errorf("name does not resolve: %w", syscall.EHOSTUNREACH)

func (r refusal) error() error {
	switch r {
	case refusedHost:
		return syscall.EHOSTUNREACH
	case refusedNetwork, refusedAddressStack:
		return syscall.ENETUNREACH
	case refusedProhibited:
		return syscall.EACCES
	case refusedTimeout:
		return syscall.ETIMEDOUT
	case refusedOverload:
		return ErrOverload
	case refusedDraining:
		return ErrDraining
	case refusedName:
		return ErrName
	}
	return syscall.ECONNREFUSED
}

// refusalOf maps the error of a failed connect to its place on the wire.
func refusalOf(err error) refusal {
	for _, m := range []struct {
		err error
		r   refusal
	}{
		{ErrOverload, refusedOverload},
		{ErrDraining, refusedDraining},
		{ErrName, refusedName},
		{syscall.ECONNREFUSED, refusedConnection},
		{syscall.ECONNRESET, refusedConnection},
		{syscall.EHOSTUNREACH, refusedHost},
		{syscall.EHOSTDOWN, refusedHost},
		{syscall.ENETUNREACH, refusedNetwork},
		{syscall.ENETDOWN, refusedNetwork},
		{syscall.EADDRNOTAVAIL, refusedAddressStack},
		{syscall.EAFNOSUPPORT, refusedAddressStack},
		{syscall.EACCES, refusedProhibited},
		{syscall.EPERM, refusedProhibited},
		{syscall.ETIMEDOUT, refusedTimeout},
	} {
		if errors.Is(err, m.err) {
			return m.r
		}
	}
	return refusedUnspecified
}

package gue

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// AddrPair is a pair of outer addresses.
type AddrPair struct{ Src, Dst netip.Addr }

// ReceiverConfig is the policy of a Receiver. The zero value of a field accepts
// what the drafts accept by default, and nothing that needs an agreement.
type ReceiverConfig struct {
	// Profile is what the flags of this peer mean.
	Profile Profile
	// Protocols are the protocol numbers of data that is delivered. Variant 1
	// counts as ProtoIPv4 or ProtoIPv6. ProtoNone is refused.
	Protocols []Protocol
	// ExIDs are the experiments whose control messages are delivered; other
	// control messages never are, as none are defined.
	ExIDs []uint32
	// Cookies are the cookies that are accepted, of 8, 16 or 32 bytes; more
	// than one while they are rotated. Copied.
	Cookies [][]byte
	// Keys are the HMAC keys that are accepted.
	Keys []HMACKey
	// Require lists fields that each message must have, because both ends
	// agreed on them: a missing flag does not protect itself. Cookies or Keys
	// imply FieldSecurity. Variant 1, which has no fields, is then refused.
	Require Fields

	// RefuseZeroChecksum4 drops zero UDP checksums over IPv4, which are
	// otherwise accepted (gue-09 §5.8.1).
	RefuseZeroChecksum4 bool
	// ZeroChecksum6 lists the address pairs from which a zero UDP checksum
	// without GUE checksum is accepted over IPv6, on the destination port
	// ZeroChecksum6Port alone (gue-09 §5.8.2).
	ZeroChecksum6     []AddrPair
	ZeroChecksum6Port uint16
	// UnverifiedRemoteChecksum accepts remote checksum offload without a
	// verified outer checksum, as Linux sends it with encap-remcsum alone.
	// Nothing protects the payload then (extensions-06 §7.2.2 forbids it).
	UnverifiedRemoteChecksum bool

	// Transform undoes payload transforms; nil drops them.
	Transform Reverser
	// LooseTransformProto accepts transformed payloads with any protocol
	// number: extensions-06 §6.1 sets it to ProtoNone, §2 only recommends it.
	LooseTransformProto bool
	// Reassembly bounds the reassembler; nil drops fragments.
	Reassembly *ReassemblerConfig
	// InnerChecksum is the checksum of TCP and UDP without an IP header.
	InnerChecksum InnerChecksum
}

// Message is what a Receiver delivers.
type Message struct {
	// Held says that the datagram was a good fragment of an unfinished
	// packet; there is no payload.
	Held bool
	// Control says that Payload is the body of a control message of the
	// experiment ExID, else it is data of the protocol Proto.
	Control bool
	Proto   Protocol
	ExID    uint32
	// Has are the fields of the header; of reassembled packets, of the
	// fragment that arrived last.
	Has Fields
	// Group, Source and Destination are the fields of that name.
	Group               uint32
	Source, Destination uint64
	// Addresses is the addresses extension as it came, for
	// SessionAddrs.Decode; borrowed like Payload.
	Addresses []byte
	// Payload is an IP packet of exactly its own length, or a segment, or a
	// control body. It borrows from the datagram, from the reassembler or
	// from the transform, until the next call.
	Payload []byte
}

// Receiver applies every check of gue-09 §5.4 and extensions-06 §11.2 to
// datagrams of one peer, or of several under one policy. It is not safe for
// concurrent use.
type Receiver struct {
	cfg        ReceiverConfig
	protocols  [256]bool
	zeroPairs  map[AddrPair]struct{}
	macs       *macs
	reassembly *Reassembler
	header     [MaxLen]byte // a copy with cleared values to compute over
}

// NewReceiver checks the policy and returns a Receiver. It does nothing else.
func NewReceiver(cfg ReceiverConfig) (*Receiver, error) {
	r := &Receiver{cfg: cfg}
	r.cfg.ExIDs = slices.Clone(cfg.ExIDs)
	for _, p := range cfg.Protocols {
		if p == ProtoNone {
			return nil, fmt.Errorf("gue: protocol %d cannot be accepted: it is not to be parsed", p)
		}
		r.protocols[p] = true
	}
	r.cfg.Cookies = nil
	for _, c := range cfg.Cookies {
		if err := validCookie(c); err != nil {
			return nil, err
		}
		r.cfg.Cookies = append(r.cfg.Cookies, slices.Clone(c))
	}
	var err error
	if r.macs, err = newMACs(cfg.Keys); err != nil {
		return nil, err
	}
	r.cfg.Keys = nil
	if len(cfg.Cookies)+len(cfg.Keys) > 0 {
		r.cfg.Require |= FieldSecurity
	}
	if bad := r.cfg.Require &^ cfg.Profile.Fields(); bad != 0 {
		return nil, fmt.Errorf("gue: fields %#x are required and not in profile %v", uint16(bad), cfg.Profile)
	}
	r.zeroPairs = make(map[AddrPair]struct{}, len(cfg.ZeroChecksum6))
	for _, p := range cfg.ZeroChecksum6 {
		r.zeroPairs[p] = struct{}{}
	}
	r.cfg.ZeroChecksum6 = nil
	if cfg.Reassembly != nil {
		if r.reassembly, err = NewReassembler(*cfg.Reassembly); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Reassembler returns the reassembler, whose Expire and Deadline the owner
// calls between datagrams; nil if fragments are not accepted.
func (r *Receiver) Reassembler() *Reassembler { return r.reassembly }

// Receive checks the UDP payload b, which it borrows and changes in place
// where remote checksum, NAT checksum and ECN ask for it, and fills m with
// what is to be delivered. Every field of m is set, to zero when it reports a
// reason to drop. The time now is for reassembly alone.
func (r *Receiver) Receive(now time.Time, out *Outer, b []byte, m *Message) Drop {
	*m = Message{}
	drop := r.receive(now, out, b, m)
	if drop != DropNone {
		*m = Message{}
	}
	return drop
}

func (r *Receiver) receive(now time.Time, out *Outer, b []byte, m *Message) Drop {
	if out.Checksum == ChecksumBad {
		return DropUDPChecksum
	}
	if len(b) == 0 {
		return DropEmpty
	}
	if b[0]&variantMask == 0x40 {
		return r.variant1(out, b, m)
	}
	var h Header
	n, drop := h.Decode(r.cfg.Profile, b)
	if drop != DropNone {
		return drop
	}
	if !r.zeroAllowed(out, h.Has&FieldChecksum != 0) {
		return DropZeroChecksum
	}
	if r.cfg.Require&^h.Has != 0 {
		return DropMissing
	}
	header, payload := b[:n:n], b[n:]
	if drop := r.integrity(out, &h, header, payload); drop != DropNone {
		return drop
	}
	var nat *NATChecksum
	if h.Has&FieldNATChecksum != 0 {
		// A zero outer checksum is not made with the addresses that N restores.
		if out.Checksum != ChecksumVerified {
			return DropUnverified
		}
		nat = &h.NATChecksum
	}
	if h.Has&FieldRemoteChecksum != 0 {
		if out.Checksum != ChecksumVerified && !r.cfg.UnverifiedRemoteChecksum {
			return DropUnverified
		}
		if drop := completeRemote(h.RemoteChecksum, payload); drop != DropNone {
			return drop
		}
	}

	proto, ecn := h.ProtoCtype, ECN(out.TOS&ecnMask)
	if h.Has&FieldTransform != 0 {
		if proto != none(h.Control) && !r.cfg.LooseTransformProto {
			return DropTransformProto
		}
		if r.cfg.Transform == nil {
			return DropTransform
		}
		plain, ok := r.cfg.Transform.Reverse(h.Transform, payload)
		if !ok {
			return DropTransform
		}
		payload, proto = plain, h.Transform.ProtoCtype
	}
	if h.Has&FieldFragment != 0 {
		payload, ecn, drop = r.reassemble(now, out, &h, proto, payload)
		if drop != DropNone {
			return drop
		}
		proto = h.Fragment.OrigProto
	}
	m.Has, m.Group, m.Source, m.Destination, m.Addresses = h.Has, h.Group, h.Source, h.Destination, h.Addresses
	if h.Has&FieldFragment != 0 && payload == nil {
		m.Held = true
		return DropNone
	}
	if h.Control {
		return r.control(proto, payload, m)
	}
	return r.data(out, proto, payload, ecn, nat, m)
}

// variant1 delivers an IP packet without GUE header (gue-09 §4).
func (r *Receiver) variant1(out *Outer, b []byte, m *Message) Drop {
	var proto Protocol
	switch b[0] >> 4 {
	case 4:
		proto = ProtoIPv4
	case 6:
		proto = ProtoIPv6
	default:
		return DropIPVersion
	}
	if !r.zeroAllowed(out, false) {
		return DropZeroChecksum
	}
	if r.cfg.Require != 0 {
		return DropMissing
	}
	return r.data(out, proto, b, ECN(out.TOS&ecnMask), nil, m)
}

// zeroAllowed applies the rules about zero UDP checksums (gue-09 §5.8).
func (r *Receiver) zeroAllowed(out *Outer, checksum bool) bool {
	if out.Checksum != ChecksumZero {
		return true
	}
	if out.Dst.Addr().Unmap().Is4() {
		return !r.cfg.RefuseZeroChecksum4
	}
	if checksum {
		return true
	}
	_, ok := r.zeroPairs[AddrPair{out.Src.Addr(), out.Dst.Addr()}]
	return ok && out.Dst.Port() == r.cfg.ZeroChecksum6Port
}

// integrity verifies K, A and SEC, in this order (extensions-06 §11.2).
func (r *Receiver) integrity(out *Outer, h *Header, header, payload []byte) Drop {
	if h.Has&FieldChecksum != 0 {
		if int(h.Checksum.Coverage) > len(payload) {
			return DropCoverage
		}
		if gueSum(out, header, payload[:h.Checksum.Coverage]) != 0xffff {
			return DropChecksum
		}
	}
	if h.Has&FieldAltChecksum != 0 {
		if int(h.AltChecksum.Coverage) > len(payload) {
			return DropCoverage
		}
		c := r.header[:copy(r.header[:], header)]
		zeroValues(h, c, FieldChecksum|FieldAltChecksum)
		if altCRC(c, payload[:h.AltChecksum.Coverage]) != h.AltChecksum.CRC {
			return DropAltChecksum
		}
	}
	switch {
	case h.Has&FieldSecurity == 0:
		return DropNone
	case len(h.Security) == HMACLen:
		return r.macs.verify(out, h, header, payload)
	}
	return verifyCookie(r.cfg.Cookies, h.Security)
}

// reassemble hands a fragment on. The payload is nil while more are missing.
func (r *Receiver) reassemble(now time.Time, out *Outer, h *Header, proto Protocol, payload []byte) ([]byte, ECN, Drop) {
	if r.reassembly == nil {
		return nil, 0, DropFragment
	}
	return r.reassembly.Add(now, &Piece{
		Key: FragmentKey{
			Src: out.Src, Dst: out.Dst,
			HasGroup: h.Has&FieldGroup != 0, Group: h.Group,
			Source: h.Source, Destination: h.Destination,
			Control: h.Control, OrigProto: h.Fragment.OrigProto, ID: h.Fragment.ID,
		},
		ProtoCtype: proto,
		Fragment:   h.Fragment,
		ECN:        ECN(out.TOS & ecnMask),
		Data:       payload,
	})
}

// control delivers a control message (gue-09 §5.4.2).
func (r *Receiver) control(ctype Protocol, payload []byte, m *Message) Drop {
	if ctype != ControlExperimental {
		return DropControl
	}
	if len(payload) < ExIDLen {
		return DropShort
	}
	id := binary.BigEndian.Uint32(payload)
	if !slices.Contains(r.cfg.ExIDs, id) {
		return DropExID
	}
	m.Control, m.Proto, m.ExID, m.Payload = true, ctype, id, payload[ExIDLen:]
	return DropNone
}

// data delivers a data message (gue-09 §5.4.1).
func (r *Receiver) data(out *Outer, proto Protocol, payload []byte, ecn ECN, nat *NATChecksum, m *Message) Drop {
	if !r.protocols[proto] {
		return DropProtocol
	}
	if len(payload) == 0 {
		return DropInner
	}
	var drop Drop
	switch proto {
	case ProtoIPv4, ProtoIPv6:
		if payload, drop = trimIP(proto, payload); drop == DropNone {
			drop = combinePacket(ecn, payload)
		}
	default:
		drop = r.cfg.InnerChecksum.verify(out, proto, payload, nat)
	}
	m.Proto, m.Payload = proto, payload
	return drop
}

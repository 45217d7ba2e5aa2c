package wire

import "encoding/binary"

// Versions is a set of versions.
type Versions uint8

// AllVersions holds every version of this package.
const AllVersions Versions = 1<<numVersions - 1

// VersionSet returns the set of vs.
func VersionSet(vs ...Version) (s Versions) {
	for _, v := range vs {
		s |= 1 << v
	}
	return s
}

// Has reports whether v is in s.
func (s Versions) Has(v Version) bool { return s&(1<<v) != 0 }

// Only returns the one version in s; ok is false if there are more or none.
func (s Versions) Only() (v Version, ok bool) {
	for v = range numVersions {
		if s == 1<<v {
			return v, true
		}
	}
	return 0, false
}

// Detect returns the versions of which the sender of a packet can be, as far as
// this packet tells; what several packets of one peer tell is the intersection.
// An empty set means that the peer is none of the versions, or that what it sent
// was not Homa. protocol is the IP protocol number, packet what follows the IP
// header, whole.
//
// What tells:
//
//   - IP protocol 253: Linux61. 146: one of the others. 6 (hijack mode): not
//     Stripped.
//   - SYN, RST and urgent 0xb97d, as the module sets them for hijack mode: not
//     Stripped. Both fields 0, but a TCP data offset: Stripped. All three 0: a peer in user
//     space, like Append's packets, which is not Stripped.
//   - ACK of 90 bytes: Linux61; of 80: one of the others.
//   - RESEND of 36 bytes: Stripped; of 37: one of the others.
//   - RESEND of range (any, -1): Main or Stripped. With the module's flags: (0, 100)
//     for a message of which nothing arrived, or length 0: Linux61 or Linux610.
//     Main could ask for (0, 100) only if this side had cut its data at byte 100.
//   - GRANT of 33 bytes: Main; of 34 with the module's flags: Linux61 or Linux610.
//   - A control packet with the module's flags and a data offset other than five
//     words: Linux61 or Linux610.
//   - Any GRANT, CUTOFFS or FREEZE, and DATA with unscheduled bytes or with a
//     seg.offset of -1: not Stripped.
//
// Main and Linux610 stay undecided until a GRANT or RESEND comes, which does not
// matter before, since the rest of their packets are the same. Nothing here is
// proof: whoever can send packets as a peer can look like any version.
func Detect(protocol uint8, packet []byte) Versions {
	var s Versions
	switch protocol {
	case ProtocolLinux61:
		s = VersionSet(Linux61)
	case Protocol:
		s = VersionSet(Main, Linux610, Stripped)
	case ProtocolHijack:
		s = VersionSet(Main, Linux610, Linux61)
	}
	if len(packet) < commonSize {
		return 0
	}
	t := Type(packet[offType])
	module := packet[offFlags] == hijackFlags && binary.BigEndian.Uint16(packet[offUrgent:]) == hijackUrgent
	zeros := packet[offFlags] == 0 && binary.BigEndian.Uint16(packet[offUrgent:]) == 0
	dataOffset := packet[offDataOffset]
	switch {
	case zeros && dataOffset != 0:
		s &= VersionSet(Stripped)
	case module && t != Data && dataOffset != 0x50:
		s &= VersionSet(Linux610, Linux61)
	default:
		s &^= VersionSet(Stripped)
	}
	return s & detectType(t, packet, module)
}

// detectType is the part of Detect that looks at the fields of type t.
func detectType(t Type, b []byte, module bool) Versions {
	n := len(b)
	switch {
	case t < Data || t > Ack || n < Stripped.minSize(t):
		return 0
	case t == Data:
		if binary.BigEndian.Uint32(b[offIncoming:]) != 0 || binary.BigEndian.Uint32(b[offSegOffset:]) == noOffset {
			return AllVersions &^ VersionSet(Stripped)
		}
	case t == Ack:
		if n >= Linux61.minSize(Ack) {
			return VersionSet(Linux61)
		}
		return AllVersions &^ VersionSet(Linux61)
	case t == Grant && n == grantSize:
		return VersionSet(Main)
	case t == Grant && module:
		return VersionSet(Linux610, Linux61)
	case t == Resend:
		return detectResend(b, module)
	case t == Grant || t == Cutoffs || t == Freeze:
		return AllVersions &^ VersionSet(Stripped)
	}
	return AllVersions
}

func detectResend(b []byte, module bool) Versions {
	s := AllVersions &^ VersionSet(Stripped)
	if len(b) == resendSizeShort {
		s = VersionSet(Stripped)
	}
	offset := binary.BigEndian.Uint32(b[offResendOffset:])
	length := int32(binary.BigEndian.Uint32(b[offResendLength:]))
	switch {
	case length == ResendAllLength:
		s &= VersionSet(Main, Stripped)
	case module && (length == 0 || offset == 0 && length == 100):
		s &= VersionSet(Linux610, Linux61)
	}
	return s
}

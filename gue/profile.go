package gue

// Profile says what the sixteen flags mean between two ends. Profiles are
// agreed by configuration and never mixed or guessed: the same bits mean
// different things in each. The zero Profile knows no flag, like the base
// draft alone.
type Profile uint8

// The profiles.
const (
	// ProfileTougw has the flags of extensions-06 §13 (0 to 9) and the
	// project's own: 10 and 11 for the source and destination session
	// identifiers, 12 and 13 for the flow's addresses.
	ProfileTougw Profile = iota + 1
	// ProfileTouDrawn has the three flags at the places where the figures of
	// transports-over-udp-01 §3.1 and §5 draw them: 6 payload transform,
	// 7 source and 8 destination session identifier. In extensions-06 these
	// are R, K and N.
	ProfileTouDrawn
	// ProfileLinux has flag 15 only, a word of private flags of which the
	// kernel knows one, remote checksum offload (include/net/gue.h).
	ProfileLinux
)

// String returns the name of the profile as configuration spells it.
func (p Profile) String() string {
	switch p {
	case ProfileTougw:
		return "tougw"
	case ProfileTouDrawn:
		return "tou-drawn"
	case ProfileLinux:
		return "linux"
	}
	return "base"
}

// Flags of the tougw profile up to bit 9 (extensions-06 §13). Bit 0 of the
// drafts is the most significant.
const (
	flagGroup          = 0x8000
	flagSecurity       = 0x7000 // three bits, see securityLen
	flagFragment       = 0x0800
	flagTransform      = 0x0400
	flagRemoteChecksum = 0x0200
	flagChecksum       = 0x0100
	flagNATChecksum    = 0x0080
	flagAltChecksum    = 0x0040
)

// Flags of the tougw profile that are the project's own: the next ones free
// by the drafts' rule that flags are handed out without holes.
const (
	flagSource      = 0x0020
	flagDestination = 0x0010
	flagAddresses   = 0x000c // two bits, see addressesLen
	flagUnassigned  = 0x0003
)

// Flags of the tou-drawn profile.
const (
	drawnTransform   = 0x0200
	drawnSource      = 0x0100
	drawnDestination = 0x0080
)

// Flags of the linux profile: one in the header, one in the private word.
const (
	linuxPrivate        = 0x0001
	linuxRemoteChecksum = 0x80000000
)

// Shifts of the two groups of flags.
const (
	securityShift  = 12
	addressesShift = 2
)

// securityLen is the length of the security field by the value of its flags;
// a negative one is reserved (extensions-06 §4.1).
var securityLen = [8]int8{0, 8, 16, 32, 40, -1, -1, -1}

// addressesLen is the length of the addresses field by the value of its flags.
var addressesLen = [4]int8{0, 8, 32, 100}

// Fields is a set of header fields, independent of where a profile puts their
// flags. Its order is the order of the fields on the wire.
type Fields uint16

// The fields of a variant 0 header.
const (
	// FieldPrivate is the private flags word of the linux profile (4 bytes).
	FieldPrivate Fields = 1 << iota
	// FieldGroup is G, the group identifier (4 bytes).
	FieldGroup
	// FieldSecurity is SEC, a cookie or HMAC (8, 16, 32 or 40 bytes).
	FieldSecurity
	// FieldFragment is F (8 bytes).
	FieldFragment
	// FieldTransform is T, the payload transform (4 bytes).
	FieldTransform
	// FieldRemoteChecksum is R, remote checksum offload (4 bytes).
	FieldRemoteChecksum
	// FieldChecksum is K, the GUE checksum (4 bytes).
	FieldChecksum
	// FieldNATChecksum is N, the NAT checksum address (4 bytes).
	FieldNATChecksum
	// FieldAltChecksum is A, the alternate checksum (8 bytes).
	FieldAltChecksum
	// FieldSource is S, the sender's session identifier (8 bytes).
	FieldSource
	// FieldDestination is D, the receiver's session identifier (8 bytes).
	FieldDestination
	// FieldAddresses is the addresses of a flow (8, 32 or 100 bytes).
	FieldAddresses
)

// fieldLen is the length of the fields whose length is fixed, by bit number.
var fieldLen = [...]int{
	4, // private
	4, // group
	0, // security: by its content
	8, // fragment
	4, // transform
	4, // remote checksum
	4, // checksum
	4, // NAT checksum
	8, // alternate checksum
	8, // source
	8, // destination
	0, // addresses: by their content
}

// Fields a profile can carry.
const (
	tougwFields = FieldGroup | FieldSecurity | FieldFragment | FieldTransform | FieldRemoteChecksum |
		FieldChecksum | FieldNATChecksum | FieldAltChecksum | FieldSource | FieldDestination | FieldAddresses
	drawnFields = FieldTransform | FieldSource | FieldDestination
	linuxFields = FieldPrivate | FieldRemoteChecksum
)

// Fields returns the fields that headers of this profile can have.
func (p Profile) Fields() Fields {
	switch p {
	case ProfileTougw:
		return tougwFields
	case ProfileTouDrawn:
		return drawnFields
	case ProfileLinux:
		return linuxFields
	}
	return 0
}

// fields translates the flags of a header. The lengths of the security and the
// addresses fields are returned in bytes. In the linux profile the private
// word may add FieldRemoteChecksum afterwards.
func (p Profile) fields(flags uint16) (has Fields, sec, addrs int, drop Drop) {
	switch p {
	case ProfileTougw:
		if flags&flagUnassigned != 0 {
			return 0, 0, 0, DropFlag
		}
		sec = int(securityLen[flags&flagSecurity>>securityShift])
		if sec < 0 {
			return 0, 0, 0, DropReserved
		}
		addrs = int(addressesLen[flags&flagAddresses>>addressesShift])
		has = pick(flags, flagGroup, FieldGroup) |
			pick(flags, flagSecurity, FieldSecurity) |
			pick(flags, flagFragment, FieldFragment) |
			pick(flags, flagTransform, FieldTransform) |
			pick(flags, flagRemoteChecksum, FieldRemoteChecksum) |
			pick(flags, flagChecksum, FieldChecksum) |
			pick(flags, flagNATChecksum, FieldNATChecksum) |
			pick(flags, flagAltChecksum, FieldAltChecksum) |
			pick(flags, flagSource, FieldSource) |
			pick(flags, flagDestination, FieldDestination) |
			pick(flags, flagAddresses, FieldAddresses)
		return has, sec, addrs, DropNone
	case ProfileTouDrawn:
		if flags&^(drawnTransform|drawnSource|drawnDestination) != 0 {
			return 0, 0, 0, DropFlag
		}
		return pick(flags, drawnTransform, FieldTransform) |
			pick(flags, drawnSource, FieldSource) |
			pick(flags, drawnDestination, FieldDestination), 0, 0, DropNone
	case ProfileLinux:
		if flags&^linuxPrivate != 0 {
			return 0, 0, 0, DropFlag
		}
		return pick(flags, linuxPrivate, FieldPrivate), 0, 0, DropNone
	}
	if flags != 0 {
		return 0, 0, 0, DropFlag
	}
	return 0, 0, 0, DropNone
}

func pick(flags, mask uint16, f Fields) Fields {
	if flags&mask != 0 {
		return f
	}
	return 0
}

// flags is the reverse of fields, for fields that the profile can carry; sec
// and addrs are the values of the two groups of flags.
func (p Profile) flags(has Fields, sec, addrs uint16) uint16 {
	var f uint16
	switch p {
	case ProfileTougw:
		f = sec<<securityShift | addrs<<addressesShift |
			put(has, FieldGroup, flagGroup) |
			put(has, FieldFragment, flagFragment) |
			put(has, FieldTransform, flagTransform) |
			put(has, FieldRemoteChecksum, flagRemoteChecksum) |
			put(has, FieldChecksum, flagChecksum) |
			put(has, FieldNATChecksum, flagNATChecksum) |
			put(has, FieldAltChecksum, flagAltChecksum) |
			put(has, FieldSource, flagSource) |
			put(has, FieldDestination, flagDestination)
	case ProfileTouDrawn:
		f = put(has, FieldTransform, drawnTransform) |
			put(has, FieldSource, drawnSource) |
			put(has, FieldDestination, drawnDestination)
	case ProfileLinux:
		f = put(has, FieldPrivate, linuxPrivate)
	}
	return f
}

func put(has, f Fields, flag uint16) uint16 {
	if has&f != 0 {
		return flag
	}
	return 0
}

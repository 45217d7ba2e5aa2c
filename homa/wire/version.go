package wire

import "fmt"

// Version is a form of the protocol that a peer speaks. Nothing negotiates it.
type Version uint8

const (
	// Main is the module's branch main; net-next in its complete form and
	// linux_6.13.9 put the same bytes on the wire.
	Main Version = iota
	// Linux610 is branch linux_6.10.6: as Main, with resend_all in GRANT.
	Linux610
	// Stripped is net-next without grants, cutoffs and priorities, as offered for
	// the mainline kernel: RESEND has no priority, the fields that overlay TCP are 0.
	Stripped
	// Linux61 is branch linux_6.1.38: another IP protocol, and acknowledgements
	// that name the client's port.
	Linux61

	numVersions
)

// IP protocol numbers.
const (
	Protocol        = 146 // all versions but Linux61
	ProtocolLinux61 = 253
	ProtocolHijack  = 6 // any version but Stripped, where hijack_tcp is on
)

var versionNames = [numVersions]string{"main", "6.10", "stripped", "6.1"}

// String returns the name that ParseVersion takes.
func (v Version) String() string {
	if v < numVersions {
		return versionNames[v]
	}
	return fmt.Sprintf("version %d", uint8(v))
}

// ParseVersion returns the version called name: main, 6.10, stripped or 6.1.
func ParseVersion(name string) (Version, error) {
	for v, s := range versionNames {
		if s == name {
			return Version(v), nil
		}
	}
	return 0, fmt.Errorf("homa/wire: version %q is none of main, 6.10, stripped, 6.1", name)
}

// IPProtocol is the IP protocol number that v is carried in.
func (v Version) IPProtocol() uint8 {
	if v == Linux61 {
		return ProtocolLinux61
	}
	return Protocol
}

// Knows reports whether a peer of version v takes packets of type t.
func (v Version) Knows(t Type) bool {
	switch t {
	case Grant, Cutoffs, Freeze:
		return v != Stripped
	}
	return t >= Data && t <= Ack
}

// DataHeaderSize is the number of bytes in front of the data of a DATA packet.
func (v Version) DataHeaderSize() int { return dataSize }

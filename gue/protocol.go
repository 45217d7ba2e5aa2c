package gue

// Protocol is what follows a GUE header: an IP protocol number in a data
// message, a control type in a control message (gue-09 §3.2).
type Protocol uint8

// IP protocol numbers that GUE data messages carry (IANA).
const (
	ProtoICMP   Protocol = 1
	ProtoIPv4   Protocol = 4
	ProtoTCP    Protocol = 6
	ProtoUDP    Protocol = 17
	ProtoIPv6   Protocol = 41
	ProtoGRE    Protocol = 47
	ProtoICMPv6 Protocol = 58
	// ProtoHoma is Homa (draft-ousterhout-tsvwg-homa-00).
	ProtoHoma Protocol = 146
	// ProtoNone (no next header) says that a flag or field, and not the
	// protocol number, tells what the payload is (gue-09 §3.2.1).
	ProtoNone Protocol = 59
)

// Control types (gue-09 §3.2.2).
const (
	// ControlContext is a control payload that a flag or field explains.
	ControlContext Protocol = 0
	// ControlExperimental is followed by a 32-bit ExID.
	ControlExperimental Protocol = 255
)

// Port is the UDP port assigned to GUE (gue-09 §8.1).
const Port = 6080

// none is the protocol or control type of a payload that must not be parsed
// by its number: a later fragment, a transformed payload.
func none(control bool) Protocol {
	if control {
		return ControlContext
	}
	return ProtoNone
}

package gue

// Drop says why something that arrived is not delivered. The zero value says
// that nothing is wrong. GUE drops silently (gue-09 §5.4): callers count.
type Drop uint8

// Reasons to drop. The text of each (String) is stable and fit for a metric's
// label.
const (
	// DropNone: the message is good.
	DropNone Drop = iota
	// DropEmpty: no bytes at all.
	DropEmpty
	// DropShort: fewer bytes than the base header, or than the structure that
	// is decoded.
	DropShort
	// DropVariant: variant 2 or 3 (gue-09 §5.4).
	DropVariant
	// DropIPVersion: variant 1 whose IP version is neither 4 nor 6.
	DropIPVersion
	// DropHlen: Hlen points behind the end of the datagram.
	DropHlen
	// DropFlag: a flag that the profile does not know, or, in the private
	// flags of the linux profile, a flag that nobody defines.
	DropFlag
	// DropReserved: a reserved value in a group of flags (SEC 101 to 111).
	DropReserved
	// DropFields: the fields that the flags ask for do not fit Hlen.
	DropFields
	// DropExtension: a known extension in a place that has no use for it.
	DropExtension
	// DropProtocol: a protocol number that is not accepted here.
	DropProtocol
	// DropControl: an unknown control type, or a control message where data
	// is decoded, or the reverse.
	DropControl
	// DropExID: an experimental control message of an unknown experiment.
	DropExID
	// DropInner: the IP, TCP or UDP header inside is malformed.
	DropInner
	// DropInnerChecksum: the checksum of the TCP segment or UDP datagram
	// inside does not verify.
	DropInnerChecksum
	// DropUDPChecksum: the outer UDP checksum is wrong.
	DropUDPChecksum
	// DropZeroChecksum: the outer UDP checksum is zero where that is not
	// allowed (gue-09 §5.8).
	DropZeroChecksum
	// DropMissing: an extension that both ends agreed on is absent.
	DropMissing
	// DropChecksum: the GUE checksum does not verify.
	DropChecksum
	// DropAltChecksum: the CRC-32C does not verify.
	DropAltChecksum
	// DropCoverage: an integrity check covers more than the payload.
	DropCoverage
	// DropSecurity: the cookie or HMAC is wrong, or none was agreed.
	DropSecurity
	// DropSecurityKey: the HMAC names an unknown key.
	DropSecurityKey
	// DropRemoteChecksum: remote checksum offload points outside the payload.
	DropRemoteChecksum
	// DropUnverified: an extension that needs a verified outer UDP checksum
	// came without one.
	DropUnverified
	// DropTransform: the payload transform is unknown or failed.
	DropTransform
	// DropTransformProto: a transformed payload whose protocol number is not
	// ProtoNone, or whose control type is not ControlContext.
	DropTransformProto
	// DropFragment: fragments are not accepted here.
	DropFragment
	// DropFragmentReserved: reserved bits of the fragmentation field are set.
	DropFragmentReserved
	// DropFragmentProto: protocol number and original protocol contradict
	// the position of the fragment.
	DropFragmentProto
	// DropFragmentLength: an empty fragment, or one that is not the last and
	// no multiple of eight bytes.
	DropFragmentLength
	// DropFragmentSize: the fragment ends behind the largest packet.
	DropFragmentSize
	// DropFragmentFirst: the first fragment is shorter than the minimum.
	DropFragmentFirst
	// DropFragmentOverlap: the fragment overlaps one that is held.
	DropFragmentOverlap
	// DropFragmentEnd: the fragment contradicts the known end of the packet.
	DropFragmentEnd
	// DropFragmentLimit: the reassembler is full.
	DropFragmentLimit
	// DropECN: the outer header says congestion experienced, and the inner
	// one cannot (RFC 6040 §4.2).
	DropECN
	// DropAddresses: a malformed addresses extension.
	DropAddresses

	// NumDrops is the number of values; counters can be arrays of it.
	NumDrops = iota
)

var dropNames = [NumDrops]string{
	DropNone:             "none",
	DropEmpty:            "empty",
	DropShort:            "short",
	DropVariant:          "variant",
	DropIPVersion:        "ip_version",
	DropHlen:             "hlen",
	DropFlag:             "unknown_flag",
	DropReserved:         "reserved_value",
	DropFields:           "fields_overrun",
	DropExtension:        "unexpected_extension",
	DropProtocol:         "protocol",
	DropControl:          "control_type",
	DropExID:             "experiment",
	DropInner:            "inner_malformed",
	DropInnerChecksum:    "inner_checksum",
	DropUDPChecksum:      "udp_checksum",
	DropZeroChecksum:     "udp_checksum_zero",
	DropMissing:          "extension_missing",
	DropChecksum:         "gue_checksum",
	DropAltChecksum:      "alternate_checksum",
	DropCoverage:         "coverage",
	DropSecurity:         "security",
	DropSecurityKey:      "security_key",
	DropRemoteChecksum:   "remote_checksum",
	DropUnverified:       "unverified",
	DropTransform:        "transform",
	DropTransformProto:   "transform_protocol",
	DropFragment:         "fragment_refused",
	DropFragmentReserved: "fragment_reserved",
	DropFragmentProto:    "fragment_protocol",
	DropFragmentLength:   "fragment_length",
	DropFragmentSize:     "fragment_size",
	DropFragmentFirst:    "fragment_first",
	DropFragmentOverlap:  "fragment_overlap",
	DropFragmentEnd:      "fragment_end",
	DropFragmentLimit:    "fragment_limit",
	DropECN:              "ecn",
	DropAddresses:        "addresses",
}

// String returns the stable name of the reason.
func (d Drop) String() string {
	if int(d) < len(dropNames) {
		return dropNames[d]
	}
	return "invalid"
}

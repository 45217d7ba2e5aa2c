package gue

// TransformDTLS is the transform type of a payload that is one DTLS record
// (extensions-06 §6.4). Types 128 to 255 are for private use.
const TransformDTLS = 1

// Transform is the payload transform field (extensions-06 §6.1):
//
//	+---------------+---------------+-------------------------------+
//	|     Type      |  P_C_type     |              Info             |
//	+---------------+---------------+-------------------------------+
type Transform struct {
	// Type is the transform, TransformDTLS or a private one.
	Type uint8
	// ProtoCtype is what the payload was before the transform.
	ProtoCtype Protocol
	// Info belongs to the transform; zero for DTLS.
	Info uint16
}

// A Reverser undoes payload transforms.
type Reverser interface {
	// Reverse undoes the transform t of payload, which it borrows and may
	// overwrite. What it returns is borrowed by the caller until the next
	// call and may be part of payload. It reports false for a transform it
	// does not know and for one that fails.
	Reverse(t Transform, payload []byte) (plain []byte, ok bool)
}

// SetTransform turns h into the header of the transformed payload: the
// protocol moves to the transform field, and its place says that the payload
// must not be parsed by number (extensions-06 §6.1). A sender fragments first
// and transforms each fragment.
func (h *Header) SetTransform(kind uint8, info uint16) {
	h.Has |= FieldTransform
	h.Transform = Transform{Type: kind, ProtoCtype: h.ProtoCtype, Info: info}
	h.ProtoCtype = none(h.Control)
}

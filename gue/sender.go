package gue

import (
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"slices"
)

// SenderConfig says how a Sender protects what it sends. At most one of
// Cookie and Key is set.
type SenderConfig struct {
	// Profile is what the flags mean at the peer.
	Profile Profile
	// Cookie is sent in each message, 8, 16 or 32 bytes. Copied.
	Cookie []byte
	// Key makes an HMAC in each message.
	Key *HMACKey
	// Cover is how many bytes of the payload the HMAC covers, from its start;
	// more than there are means all.
	Cover uint16
}

// Sender puts headers in front of payloads, and fills in the values that depend
// on header, payload and outer packet, in the order of extensions-06 §11.1.
// Fragmenting (Fragmenter), the group and the transform (SetTransform) come
// before it and are the caller's. It is not safe for concurrent use.
type Sender struct {
	profile  Profile
	security []byte // the field as it is sent; of an HMAC, with zero value
	key      hash.Hash
	macs     *macs
	cover    int
}

// NewSender checks the configuration and returns a Sender. It does nothing
// else.
func NewSender(cfg SenderConfig) (*Sender, error) {
	s := &Sender{profile: cfg.Profile, cover: int(cfg.Cover)}
	switch {
	case cfg.Cookie != nil && cfg.Key != nil:
		return nil, fmt.Errorf("gue: cookie and HMAC key exclude each other")
	case cfg.Cookie != nil:
		if err := validCookie(cfg.Cookie); err != nil {
			return nil, err
		}
		s.security = slices.Clone(cfg.Cookie)
	case cfg.Key != nil:
		var err error
		if s.macs, err = newMACs([]HMACKey{*cfg.Key}); err != nil {
			return nil, err
		}
		s.key = s.macs.keys[cfg.Key.ID]
		s.security = make([]byte, HMACLen)
		binary.BigEndian.PutUint32(s.security, cfg.Key.ID)
	}
	if s.security != nil && cfg.Profile.Fields()&FieldSecurity == 0 {
		return nil, fmt.Errorf("gue: profile %v has no security field", cfg.Profile)
	}
	return s, nil
}

// HeaderLen returns how many bytes Seal will write in front of the payload.
func (s *Sender) HeaderLen(h *Header) int {
	n := h.Len()
	if s.security != nil {
		if h.Has&FieldSecurity != 0 {
			n -= len(h.Security)
		}
		n += len(s.security)
	}
	return n
}

// Seal writes the header h to b[:HeaderLen(h)]; the payload is the rest of b
// and stays as it is. It fills in security field, NAT checksum, alternate
// checksum and GUE checksum where h has them, in b and in h. In h, the coverage of
// the two checksums is the caller's to set, and remote checksum offload expects
// the sum of the pseudo-header in the payload already. The security field of h
// belongs to the Sender and must not be changed by the caller. It returns the
// length of the header. Its errors are io.ErrShortBuffer and ErrHeader.
func (s *Sender) Seal(out *Outer, h *Header, b []byte) (int, error) {
	if s.security != nil {
		h.Has |= FieldSecurity
		h.Security = s.security
	} else if h.Has&FieldSecurity != 0 {
		return 0, fmt.Errorf("%w: no cookie and no key for the security field", ErrHeader)
	}
	n := h.Len()
	if len(b) < n {
		return 0, io.ErrShortBuffer
	}
	payload := b[n:]
	if err := s.check(h, len(payload)); err != nil {
		return 0, err
	}
	cover := min(s.cover, len(payload))
	if s.key != nil {
		binary.BigEndian.PutUint16(s.security[hmacCoverLength:], uint16(cover))
		clear(s.security[hmacValue:])
	}
	if h.Has&FieldNATChecksum != 0 {
		h.NATChecksum = NATChecksum{Value: AddressChecksum(out)}
	}
	h.AltChecksum.CRC, h.Checksum.Value = 0, 0
	if _, err := h.Encode(s.profile, b); err != nil {
		return 0, err
	}
	header := b[:n:n]
	if s.key != nil {
		copy(s.security[hmacValue:], s.macs.compute(s.key, out, h, header, payload[:cover]))
		copy(header[h.offset(FieldSecurity):], s.security)
	}
	if h.Has&FieldAltChecksum != 0 {
		h.AltChecksum.CRC = altCRC(header, payload[:h.AltChecksum.Coverage])
		binary.BigEndian.PutUint32(header[h.offset(FieldAltChecksum)+4:], h.AltChecksum.CRC)
	}
	if h.Has&FieldChecksum != 0 {
		h.Checksum.Value = ^gueSum(out, header, payload[:h.Checksum.Coverage])
		binary.BigEndian.PutUint16(header[h.offset(FieldChecksum):], h.Checksum.Value)
	}
	return n, nil
}

// check refuses what the receiver would have to drop.
func (s *Sender) check(h *Header, payload int) error {
	switch {
	case h.Has&FieldChecksum != 0 && int(h.Checksum.Coverage) > payload:
		return fmt.Errorf("%w: checksum covers %d of %d bytes", ErrHeader, h.Checksum.Coverage, payload)
	case h.Has&FieldAltChecksum != 0 && int(h.AltChecksum.Coverage) > payload:
		return fmt.Errorf("%w: alternate checksum covers %d of %d bytes", ErrHeader, h.AltChecksum.Coverage, payload)
	case h.Has&FieldRemoteChecksum != 0 && (int(h.RemoteChecksum.Start) > payload || int(h.RemoteChecksum.Offset) > payload-2):
		return fmt.Errorf("%w: remote checksum from %d at %d of %d bytes", ErrHeader,
			h.RemoteChecksum.Start, h.RemoteChecksum.Offset, payload)
	}
	return nil
}

package gue

import (
	"encoding/binary"
	"fmt"
	"io"
)

// SessionIDLen is the length of a session identifier in bytes (tou-01 §3.1).
const SessionIDLen = 8

// sessionFields are the fields that Session knows.
const sessionFields = FieldSource | FieldDestination | FieldAddresses

// MaxSessionLen is the length of the longest Session header in bytes.
const MaxSessionLen = BaseLen + 2*SessionIDLen + NameAddrsLen

// First words of the two headers that carry nearly all data, with the
// protocol zero: variant 0, data, Hlen, flags.
const (
	wordD  = 2<<24 | flagDestination
	wordSD = 4<<24 | flagSource | flagDestination

	wordProto = 0x00ff0000
)

// Session is the header of a data message of the tougw profile inside an
// association: session identifiers, addresses, and no extension. A later
// segment of a flow has D alone, 12 bytes:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|0 0|0|0 0 0 1 0|     Proto     |0 0 0 0 0 0 0 0 0 0 0 1 0 0 0 0|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                 Destination session identifier                |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// It reads and writes the same bytes as Header with ProfileTougw, in a
// fraction of the time: the tunnel does so for each record.
type Session struct {
	// Proto is the protocol of the payload, ProtoTCP in a TOU session.
	Proto Protocol
	// Has says which of the fields below are present.
	Has Fields
	// Source is S, the identifier that the sender drew.
	Source uint64
	// Destination is D, the identifier that the receiver drew.
	Destination uint64
	// Addresses is the addresses extension, 8, 32 or 100 bytes, to be read by
	// SessionAddrs.Decode. It borrows from the decoded bytes.
	Addresses []byte
}

// Len returns the length in bytes that Encode writes.
func (s *Session) Len() int {
	n := BaseLen
	if s.Has&FieldSource != 0 {
		n += SessionIDLen
	}
	if s.Has&FieldDestination != 0 {
		n += SessionIDLen
	}
	if s.Has&FieldAddresses != 0 {
		n += len(s.Addresses)
	}
	return n
}

// Encode writes the header to the start of b, which it borrows, and returns
// its length. Its errors are io.ErrShortBuffer and ErrHeader.
func (s *Session) Encode(b []byte) (int, error) {
	if s.Has == FieldDestination && len(b) >= BaseLen+SessionIDLen {
		binary.BigEndian.PutUint32(b, wordD|uint32(s.Proto)<<16)
		binary.BigEndian.PutUint64(b[4:], s.Destination)
		return BaseLen + SessionIDLen, nil
	}
	return s.encode(b)
}

func (s *Session) encode(b []byte) (int, error) {
	if bad := s.Has &^ sessionFields; bad != 0 {
		return 0, fmt.Errorf("%w: session header has no field of %#x", ErrHeader, uint16(bad))
	}
	var flags uint32
	if s.Has&FieldAddresses != 0 {
		v := indexLen(addressesLen[:], len(s.Addresses))
		if v == 0 {
			return 0, fmt.Errorf("%w: addresses field of %d bytes, not 8, 32 or 100", ErrHeader, len(s.Addresses))
		}
		flags = uint32(v) << addressesShift
	}
	n := s.Len()
	if len(b) < n {
		return 0, io.ErrShortBuffer
	}
	o := BaseLen
	if s.Has&FieldSource != 0 {
		flags |= flagSource
		binary.BigEndian.PutUint64(b[o:], s.Source)
		o += SessionIDLen
	}
	if s.Has&FieldDestination != 0 {
		flags |= flagDestination
		binary.BigEndian.PutUint64(b[o:], s.Destination)
		o += SessionIDLen
	}
	if s.Has&FieldAddresses != 0 {
		copy(b[o:n], s.Addresses)
	}
	binary.BigEndian.PutUint32(b, uint32(n-BaseLen)/4<<24|uint32(s.Proto)<<16|flags)
	return n, nil
}

// Decode reads the header at the start of b, which it borrows for as long as
// s.Addresses is used, and returns the header's length; the payload is the
// rest of b. It sets every field of s, to zero when it reports a reason to
// drop. Control messages are DropControl; extensions of extensions-06, which
// nobody agreed on inside an association, are DropExtension. Surplus space is
// skipped.
func (s *Session) Decode(b []byte) (int, Drop) {
	if len(b) >= BaseLen+2*SessionIDLen {
		switch binary.BigEndian.Uint32(b) &^ wordProto {
		case wordD:
			s.Proto, s.Has, s.Source, s.Addresses = Protocol(b[1]), FieldDestination, 0, nil
			s.Destination = binary.BigEndian.Uint64(b[4:])
			return BaseLen + SessionIDLen, DropNone
		case wordSD:
			s.Proto, s.Has, s.Addresses = Protocol(b[1]), FieldSource|FieldDestination, nil
			s.Source, s.Destination = binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint64(b[12:])
			return BaseLen + 2*SessionIDLen, DropNone
		}
	}
	return s.decode(b)
}

func (s *Session) decode(b []byte) (int, Drop) {
	*s = Session{}
	n, drop := decodeBase(b)
	if drop != DropNone {
		return 0, drop
	}
	has, _, addrs, drop := ProfileTougw.fields(binary.BigEndian.Uint16(b[2:]))
	if drop != DropNone {
		return 0, drop
	}
	if b[0]&controlBit != 0 {
		return 0, DropControl
	}
	if has&^sessionFields != 0 {
		return 0, DropExtension
	}
	want := Session{Has: has, Addresses: b[:0]}
	if want.Len()+addrs > n {
		return 0, DropFields
	}
	s.Proto, s.Has = Protocol(b[1]), has
	o := BaseLen
	if has&FieldSource != 0 {
		s.Source = binary.BigEndian.Uint64(b[o:])
		o += SessionIDLen
	}
	if has&FieldDestination != 0 {
		s.Destination = binary.BigEndian.Uint64(b[o:])
		o += SessionIDLen
	}
	if addrs != 0 {
		s.Addresses = b[o : o+addrs : o+addrs]
	}
	return n, DropNone
}

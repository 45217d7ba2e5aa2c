package gue

import (
	"encoding/binary"
	"io"
)

// ExIDTougw is the experiment identifier of this project's control messages,
// "TOU1" in ASCII.
const ExIDTougw = 0x544f5531

// ExIDLen is the length in bytes of an experiment identifier. It begins the
// payload and is not part of Hlen (gue-09 §3.2.2).
const ExIDLen = 4

// ExperimentLen is the length in bytes that Experiment.Encode writes.
const ExperimentLen = BaseLen + ExIDLen

// Experiment is the header of an experimental control message without fields
// (gue-09 §3.2.2), 8 bytes:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|0 0|1|0 0 0 0 0|1 1 1 1 1 1 1 1|0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                              ExID                             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Experiment struct {
	// ExID says whose message follows, ExIDTougw for ours.
	ExID uint32
}

// Len returns ExperimentLen.
func (Experiment) Len() int { return ExperimentLen }

// Encode writes the header and the ExID to the start of b, which it borrows,
// and returns ExperimentLen. Its error is io.ErrShortBuffer.
func (e Experiment) Encode(b []byte) (int, error) {
	if len(b) < ExperimentLen {
		return 0, io.ErrShortBuffer
	}
	binary.BigEndian.PutUint32(b, controlBit<<24|uint32(ControlExperimental)<<16)
	binary.BigEndian.PutUint32(b[BaseLen:], e.ExID)
	return ExperimentLen, nil
}

// Decode reads the header and the ExID at the start of b, which it borrows,
// and returns where the message behind them begins. Surplus space is skipped.
// It reports DropControl for data and for other control types, DropExtension
// for a header with fields, and DropShort without room for the ExID. Whether
// the ExID is known is the caller's to say.
func (e *Experiment) Decode(b []byte) (int, Drop) {
	*e = Experiment{}
	n, drop := decodeBase(b)
	if drop != DropNone {
		return 0, drop
	}
	if b[0]&controlBit == 0 || Protocol(b[1]) != ControlExperimental {
		return 0, DropControl
	}
	if binary.BigEndian.Uint16(b[2:]) != 0 {
		return 0, DropExtension
	}
	if len(b)-n < ExIDLen {
		return 0, DropShort
	}
	e.ExID = binary.BigEndian.Uint32(b[n:])
	return n + ExIDLen, DropNone
}

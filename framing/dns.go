package framing

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Sizes of RFC 1035 sections 2.3.4, 4.1.1, 4.1.2 and 4.2.2.
const (
	dnsHeader   = 12
	dnsPrefix   = 2
	dnsLargest  = 1<<16 - 1
	dnsQuestion = 255 + 4 // the longest name, type and class
)

// Response codes of RFC 1035 section 4.1.1.
const (
	dnsFormErr  = 1
	dnsServFail = 2
	dnsNotImp   = 4
)

// Types of zone transfers, whose response is any number of messages (RFC 5936
// section 2.2, RFC 1995 section 4).
const (
	dnsIXFR = 251
	dnsAXFR = 252
)

// dns is the framing of DNS over TCP, RFC 1035 section 4.2.2. A message is what
// UDP would carry: the two bytes of length are stripped.
type dns struct {
	max int64
}

func newDNS(c Config) *dns { return &dns{max: min(c.Max, dnsLargest)} }

// Traits implements Framing. RFC 7766 section 7 lets servers answer in any order.
func (f *dns) Traits() Traits {
	return Traits{Window: dnsPrefix + dnsHeader + dnsQuestion, Max: f.max, Pipelined: true, Keyed: true}
}

func (f *dns) Requests() Scanner  { return &dnsScanner{f: f, what: requests, prefix: dnsPrefix} }
func (f *dns) Responses() Scanner { return &dnsScanner{f: f, what: responses, prefix: dnsPrefix} }
func (f *dns) RequestEncoder() *Encoder {
	return &Encoder{framing: f, scanner: &dnsScanner{f: f, what: requests}, max: f.max}
}
func (f *dns) ResponseEncoder() *Encoder {
	return &Encoder{framing: f, scanner: &dnsScanner{f: f, what: responses}, max: f.max}
}

func (f *dns) prefix(dst []byte, length int64) ([]byte, error) {
	return binary.BigEndian.AppendUint16(dst, uint16(length)), nil
}
func (f *dns) suffix(dst []byte, _ *Request) []byte { return dst }

// Answer implements Framing: a response without records that repeats the
// question.
func (f *dns) Answer(dst []byte, e *Error, req *Request) ([]byte, bool) {
	if req == nil || len(req.question) < dnsHeader {
		return dst, false
	}
	code := byte(dnsServFail)
	switch e.Fault {
	case Malformed:
		code = dnsFormErr
	case Unsupported:
		code = dnsNotImp
	}
	q := req.question
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(q)))
	dst = append(dst, q[0], q[1], 0x80|q[2]&0x79, code) // QR; OPCODE and RD as they were
	questions := byte(0)
	if len(q) > dnsHeader {
		questions = 1
	}
	dst = append(dst, 0, questions, 0, 0, 0, 0, 0, 0)
	return append(dst, q[dnsHeader:]...), e.Fault != Malformed && e.Fault != Truncated
}

// Failure implements Framing: the same, without its length.
func (f *dns) Failure(e *Error, req *Request) []byte {
	answer, _ := f.Answer(nil, e, req)
	return answer[min(dnsPrefix, len(answer)):]
}

// dnsScanner scans one direction of a connection, or messages without their
// length when prefix is 0.
type dnsScanner struct {
	f      *dns
	what   side
	prefix int
	inside bool
	length int64 // of the message, -1 when it ends with the input
	left   int64
	key    uint64
	refuse *Error
	err    error
	req    Request
}

// Scan implements Scanner.
func (s *dnsScanner) Scan(buf []byte, eof bool, _ *Request) (Result, error) {
	if s.err != nil {
		return Result{}, s.err
	}
	r, err := s.scan(buf, eof)
	s.err = err
	return r, err
}

func (s *dnsScanner) scan(buf []byte, eof bool) (Result, error) {
	var r Result
	if !s.inside {
		ok, err := s.begin(buf, eof)
		if !ok || err != nil {
			return r, err
		}
		r.Begin, s.inside = true, true
		r.Advance, buf = s.prefix, buf[s.prefix:]
	}
	n := len(buf)
	if s.length >= 0 {
		n = int(min(s.left, int64(n)))
		s.left -= int64(n)
		r.End = s.left == 0
		if n == 0 && eof && !r.Begin {
			return r, truncated("a DNS message")
		}
	} else {
		s.left += int64(n)
		r.End = eof
	}
	r.Data, r.Advance, r.Length, r.Key, r.Refused = buf[:n], r.Advance+n, s.length, s.key, s.refuse
	if s.what == requests {
		r.Request, r.Key = &s.req, 0
	}
	if r.End {
		if r.Length < 0 {
			r.Length = s.left
		}
		s.inside = false
	}
	if s.refuse != nil {
		r.Data, r.Length = nil, unknown
	}
	if n == 0 && !r.Begin && !r.End {
		return Result{}, nil
	}
	return r, nil
}

// begin reads the head of a message, as far as it is needed at once, and reports
// whether it was all there.
func (s *dnsScanner) begin(buf []byte, eof bool) (ok bool, err error) {
	length := int64(len(buf))
	need := int64(dnsHeader + dnsQuestion)
	if s.prefix > 0 {
		if len(buf) < s.prefix {
			if eof && len(buf) > 0 {
				err = truncated("the length of a DNS message")
			}
			return false, err
		}
		s.length = int64(binary.BigEndian.Uint16(buf))
		s.left = s.length
		if length, need = s.length, min(need, s.length); length > s.f.max {
			return false, tooLarge(s.f.max)
		}
	} else {
		s.length, s.left = unknown, 0
	}
	msg := buf[s.prefix:]
	complete := eof && s.prefix == 0
	if length < dnsHeader && (s.prefix > 0 || complete) {
		return false, malformed("a DNS message of %d bytes is shorter than its header", length)
	}
	if int64(len(msg)) < need && !complete {
		if eof {
			err = truncated("a DNS message")
		}
		return false, err
	}
	if response := msg[2]&0x80 != 0; response != (s.what == responses) {
		return false, malformed("a DNS message is no %s", s.what)
	}
	s.key, s.refuse = uint64(binary.BigEndian.Uint16(msg)), nil
	if s.what == requests {
		s.request(msg[:min(int64(len(msg)), length, dnsHeader+dnsQuestion)])
	}
	return true, nil
}

// request describes the request whose first bytes msg holds.
func (s *dnsScanner) request(msg []byte) {
	opcode := msg[2] >> 3 & 0xf
	s.req = Request{Name: dnsOpcodes[opcode], Key: s.key, Safe: opcode == 0}
	end := dnsHeader
	if binary.BigEndian.Uint16(msg[4:]) == 1 {
		if n := questionLen(msg[dnsHeader:]); n > 0 {
			end += n
			if typ := binary.BigEndian.Uint16(msg[end-4:]); opcode == 0 && (typ == dnsAXFR || typ == dnsIXFR) {
				s.refuse = &Error{Fault: Unsupported, Reason: "a zone transfer has more than one response message"}
			}
		}
	}
	s.req.question = bytes.Clone(msg[:end])
}

// questionLen returns the size of the question at the front of b, or 0 when there
// is none. The first name of a message cannot be compressed.
func questionLen(b []byte) int {
	for i := 0; i < len(b); i += 1 + int(b[i]) {
		switch {
		case b[i] > 63:
			return 0
		case b[i] == 0:
			if i+5 > len(b) {
				return 0
			}
			return i + 5
		}
	}
	return 0
}

// dnsOpcodes are the names of RFC 6895 section 2.2.
var dnsOpcodes = [16]string{0: "QUERY", 1: "IQUERY", 2: "STATUS", 4: "NOTIFY", 5: "UPDATE", 6: "DSO"}

func init() {
	for i, name := range dnsOpcodes {
		if name == "" {
			dnsOpcodes[i] = fmt.Sprintf("OPCODE%d", i)
		}
	}
}

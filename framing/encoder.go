package framing

// Encoder turns messages, whose length is known from outside, into the bytes of
// one direction of a TCP connection. It checks that each message is exactly one
// request or response, so that none can smuggle a second one into a connection
// that others share. It belongs to one goroutine at a time. For each message:
// Begin, then Scan until its result has End, then End.
type Encoder struct {
	framing interface {
		// prefix appends what precedes a message on the wire.
		prefix(dst []byte, length int64) ([]byte, error)
		// suffix appends what follows it. Req is nil for a response.
		suffix(dst []byte, req *Request) []byte
	}
	scanner Scanner
	max     int64

	left    int64 // bytes of the message that were not advanced over
	req     *Request
	current *Request // the request that is being encoded
	ended   bool
	broken  *Error
}

// Begin starts a message of length bytes and appends to dst what precedes it on
// the wire. Req is the request that a response answers, and is borrowed until
// End; nil for an encoder of requests. The error is an [*Error], and nothing was
// started then.
func (e *Encoder) Begin(dst []byte, length int64, req *Request) ([]byte, error) {
	if e.broken != nil {
		return dst, e.broken
	}
	if length < 1 {
		return dst, malformed("a message is empty")
	}
	if length > e.max {
		return dst, tooLarge(e.max)
	}
	out, err := e.framing.prefix(dst, length)
	if err != nil {
		return dst, err
	}
	e.left, e.req, e.current, e.ended = length, req, nil, false
	return out, nil
}

// Scan looks at buf, the bytes of the message that were not advanced over
// before. Its contract is that of [Scanner], with the end of the message for the
// end of the connection. [Result.Data] may be written to the connection at once.
// [Result.Length] may be less than the message where the framing leaves out
// bytes that are not for the receiver. After an error the connection must be
// closed when anything of the message was written to it.
func (e *Encoder) Scan(buf []byte) (Result, error) {
	if e.broken != nil {
		return Result{}, e.broken
	}
	if e.ended {
		return Result{}, nil
	}
	buf = buf[:min(int64(len(buf)), e.left)]
	last := int64(len(buf)) == e.left
	r, err := e.scanner.Scan(buf, last, e.req)
	if err == nil {
		e.left -= int64(r.Advance)
		switch {
		case r.End && e.left > 0:
			err = malformed("%d bytes follow the end of the message", e.left)
		case r.Unsolicited:
			err = malformed("a message is no answer")
		case last && !r.Progress():
			err = malformed("a message holds nothing to forward")
		}
	}
	if err != nil {
		e.broken, _ = err.(*Error)
		return Result{}, err
	}
	if r.Request != nil {
		e.current = r.Request
	}
	e.ended = r.End
	return r, nil
}

// End appends to dst what follows the message on the wire. It must not be called
// before Scan has reported the end, nor for a message that was refused.
func (e *Encoder) End(dst []byte) []byte {
	if !e.ended {
		panic("framing: End of a message that has not ended")
	}
	return e.framing.suffix(dst, e.current)
}

// bare is embedded by framings that put nothing around a message.
type bare struct{}

func (bare) prefix(dst []byte, _ int64) ([]byte, error) { return dst, nil }
func (bare) suffix(dst []byte, _ *Request) []byte       { return dst }

// opaque scans messages of a stripped framing: they are whatever they are. Begin
// and end come from outside.
type opaque struct {
	begun bool
	total int64
	req   Request
	what  side
}

// side is the direction of messages.
type side bool

const (
	requests  side = false
	responses side = true
)

func (s side) String() string {
	if s == responses {
		return "response"
	}
	return "request"
}

// Scan implements Scanner.
func (o *opaque) Scan(buf []byte, eof bool, _ *Request) (Result, error) {
	r := Result{Advance: len(buf), Data: buf, Length: unknown}
	if o.what == requests {
		r.Request = &o.req
	}
	if len(buf) == 0 && !(eof && o.begun) {
		return Result{}, nil
	}
	r.Begin, o.begun = !o.begun, true
	o.total += int64(len(buf))
	if eof {
		r.End, r.Length = true, o.total
		o.begun, o.total = false, 0
	}
	return r, nil
}

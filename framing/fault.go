package framing

import "fmt"

// Fault is the kind of an [Error].
type Fault uint8

// The faults that this package finds, and those that its caller tells with
// [Framing.Answer].
const (
	// Malformed bytes are not what the protocol allows.
	Malformed Fault = iota + 1
	// HeadTooLarge is a line or header block above its bound.
	HeadTooLarge
	// TooLarge is a request above [Traits.Max].
	TooLarge
	// Truncated is a message that the end of the connection cuts off.
	Truncated
	// Unsupported is a request that is valid and that cannot be one RPC.
	Unsupported

	// BadResponse is an answer that cannot be given to the client: malformed, cut
	// off, or above [Traits.Max].
	BadResponse
	// Unreachable is a server that cannot be reached.
	Unreachable
	// Timeout is a server that does not answer.
	Timeout
	// Overloaded is a gateway or server that takes no more requests.
	Overloaded
)

var faultNames = [...]string{
	Malformed:    "malformed",
	HeadTooLarge: "header too large",
	TooLarge:     "too large",
	Truncated:    "truncated",
	Unsupported:  "unsupported",
	BadResponse:  "bad response",
	Unreachable:  "unreachable",
	Timeout:      "timed out",
	Overloaded:   "overloaded",
}

// String returns the fault in words.
func (f Fault) String() string {
	if int(f) < len(faultNames) && faultNames[f] != "" {
		return faultNames[f]
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// Error says why a message or a connection cannot be handled.
type Error struct {
	Fault Fault
	// Reason is one line of printable ASCII without a period. It goes into the
	// answer to the client.
	Reason string

	status int    // HTTP: the status instead of the usual one of Fault
	answer string // memcached: the answer instead of the usual one of Fault
}

// Error returns the fault and the reason.
func (e *Error) Error() string { return "framing: " + e.Fault.String() + ": " + e.Reason }

func malformed(format string, args ...any) *Error {
	return &Error{Fault: Malformed, Reason: fmt.Sprintf(format, args...)}
}

func truncated(what string) *Error {
	return &Error{Fault: Truncated, Reason: "the connection ended within " + what}
}

func tooLarge(max int64) *Error {
	return &Error{Fault: TooLarge, Reason: fmt.Sprintf("a message is larger than %d bytes", max)}
}

func headTooLarge(what string, max int) *Error {
	return &Error{Fault: HeadTooLarge, Reason: fmt.Sprintf("%s is longer than %d bytes", what, max)}
}

// printable returns s as one line of printable ASCII, for protocols in which a
// line end in an answer would be the end of it.
func printable(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			b := []byte(s)
			for i := range b {
				if b[i] < ' ' || b[i] > '~' {
					b[i] = '?'
				}
			}
			return string(b)
		}
	}
	return s
}

// shown quotes bytes that came from outside, shortened, for a reason.
func shown(b []byte) string {
	const most = 32
	if len(b) > most {
		return fmt.Sprintf("%+q...", b[:most])
	}
	return fmt.Sprintf("%+q", b)
}

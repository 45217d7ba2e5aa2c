package translate

import (
	"time"

	"github.com/tougw/tougw/framing"
)

// exchange is a request of a TCP client and its answer. Times count from the
// client's base.
type exchange struct {
	req     framing.Request
	known   bool // req is
	dropped bool // the reader drops what follows of the request
	interim string

	// With client.mu: what the writer waits for. A fault, a local reply, or a call.
	ready   bool
	pushed  bool
	placed  bool // holds a token of Forward.places
	call    Call
	fault   *framing.Error
	final   bool // nothing behind it can be understood
	aborted bool
	// over says that the writer is done with it: the reader changes nothing more.
	over bool
	// sent is when all of the request was handed on, 0 before.
	sent time.Duration
	// expired says that the call was closed because the response took too long.
	expired bool

	// copied is the request for a second try, nil if there must be none.
	copied  []byte
	retries int

	length, answer          int64 // of request and response
	begun, opened, answered time.Duration
}

// maxCopied is the longest request in bytes that is kept for a second try. Our
// choice: longer ones are rarely without effect.
const maxCopied = 64 << 10

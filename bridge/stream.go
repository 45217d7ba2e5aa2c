package bridge

import "time"

// Stream is one end of a flow: a TCP connection that never blocks and reports
// by callback when it may go on. No method allocates in steady state.
//
// A Bridge calls Read from one goroutine at a time and Write from one goroutine
// at a time, and everything else at any time; an implementation has to bear
// that. Errors are errno values or wrap them.
type Stream interface {
	// Read reads what has been received into p, which it borrows. It returns
	// syscall.EAGAIN when there is nothing, io.EOF after the peer's FIN, and the
	// error of a failed stream (syscall.ECONNRESET, syscall.ETIMEDOUT) once all
	// bytes that arrived before the failure were read. Both of the latter are
	// repeated by every later call.
	Read(p []byte) (int, error)

	// Write queues p, which it borrows. When not all of it fits it returns the
	// count that did with syscall.EAGAIN. Any other error says that the stream
	// has failed or is closed.
	Write(p []byte) (int, error)

	// CloseWrite sends FIN after what was written.
	CloseWrite() error

	// Reset aborts the connection with RST, drops what was not sent, and
	// releases the stream. It is idempotent, and does nothing after Close.
	Reset()

	// Close releases the stream; what was written is still sent, and FIN after
	// it. It is idempotent.
	Close() error

	// Err returns nil, or the error the connection failed with, without reading
	// and before what was received has been read. A FIN is no failure. It is
	// asked after every event and must be cheap: an atomic load.
	Err() error

	// Outstanding returns how many bytes were written and not yet acknowledged
	// by the peer, a FIN counting as one at most; 0 for a failed stream.
	Outstanding() int

	// SetNotify sets the function to be called when the state changes: data or
	// FIN to be read (readable), room after a Write that returned EAGAIN
	// (writable), failure (failed; Err reports it from before the call on). A
	// call may be spurious; two changes may share a call; none may be lost. fn
	// does not block, takes no locks and may be called with locks held. After
	// SetNotify(nil) has returned no call is made. State from before the call is
	// not reported: the caller has to look once by itself.
	SetNotify(fn func(readable, writable, failed bool))

	// SetBuffers raises the bounds of what is received but not read, and of what
	// is written but not sent, in bytes; 0 leaves one as it is.
	SetBuffers(recv, send int)

	// WriteSize is the best number of bytes for a Write when there are more, for
	// instance what makes one full batch of packets; 0 when it does not matter.
	WriteSize() int

	// SetKeepalive sends probes after idle without traffic, one each interval;
	// count unanswered ones fail the stream with ETIMEDOUT. An idle of 0
	// switches it off.
	SetKeepalive(idle, interval time.Duration, count int)
}

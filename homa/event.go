package homa

// EventKind says what happened to an RPC.
type EventKind uint8

const (
	// Request: a request has begun to arrive at a served port. Its length
	// is known (RPC.ReceiveLength); some of its bytes may be readable.
	Request EventKind = iota + 1
	// Readable: bytes follow in order that were not there at the last Readable.
	// It does not come for bytes that make the message complete. RPC.SetLowWater
	// makes it rarer.
	Readable
	// Complete: all bytes of the request (server) or response (client) are
	// here. For a client the RPC is over for the protocol; what was not read yet
	// stays until it is read or the RPC is aborted.
	Complete
	// Writable: Write takes bytes again after it was short.
	Writable
	// Acked: the client has the response; the server's RPC is over.
	Acked
	// Failed: the RPC is over and Event.Err says why. What was not read is gone.
	Failed
)

var eventNames = [...]string{"none", "request", "readable", "complete", "writable", "acked", "failed"}

// String returns the kind's name in lower case.
func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return "unknown"
}

// Event is something that the owner of an Engine may want to act on.
type Event struct {
	Kind EventKind
	RPC  *RPC
	Err  error // of Failed
}

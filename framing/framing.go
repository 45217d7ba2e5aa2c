package framing

// Framing finds the messages of one protocol. It holds no state of a
// connection, and all its methods are safe for concurrent use. [New] makes one.
type Framing interface {
	// Traits says what holds for every connection.
	Traits() Traits
	// Requests returns a scanner of the bytes that one TCP client sends.
	Requests() Scanner
	// Responses returns a scanner of the bytes that one TCP server sends.
	Responses() Scanner
	// RequestEncoder returns an encoder that makes requests out of messages, for
	// one TCP connection to a server.
	RequestEncoder() *Encoder
	// ResponseEncoder returns an encoder that makes responses out of messages,
	// for the TCP connection of one client.
	ResponseEncoder() *Encoder
	// Answer appends to dst what tells a TCP client that its request failed with
	// e. Req is that request, or nil when the fault kept it from being
	// understood. Keep says that the connection is good for further requests;
	// otherwise it is closed behind the answer, and reset when dst did not grow.
	// An answer that is kept may be empty: the client asked for none.
	Answer(dst []byte, e *Error, req *Request) (answer []byte, keep bool)
	// Failure returns what tells the client of an RPC that its request failed with e:
	// a whole message, which another gateway can hand on to a TCP client as any other
	// response. Req is as in Answer. It is empty where the protocol has no words for
	// it, which is always so unless [Words] is true of its type.
	Failure(e *Error, req *Request) []byte
}

// Traits are the properties of a framing.
type Traits struct {
	// Window is at least 1: a scanner always leaves fewer bytes behind than this
	// (see [Scanner]), so that a buffer of this size always gets ahead.
	Window int
	// Max is the largest message in bytes: what one RPC carries, including
	// whatever of the framing stays in it.
	Max int64
	// Pipelined says that a server takes a request before it has answered the one
	// before. Clients may always pipeline.
	Pipelined bool
	// Keyed says that responses may come in any order and name their request by
	// [Result.Key]. No two requests with one key may be under way on a
	// connection. Otherwise responses come in the order of the requests.
	Keyed bool
	// Stream says that there are no messages, only bytes, and that [Chunk] is the
	// header under which they travel.
	Stream bool
}

// Scanner finds the messages in the bytes of one direction of one connection.
// It belongs to one goroutine at a time.
type Scanner interface {
	// Scan looks at buf, which holds all bytes that have arrived and are not yet
	// done with, and reports the next piece of at most one message. The caller
	// drops the first [Result.Advance] bytes of buf and calls again, with what is
	// left and what has arrived since. A result without progress (see
	// [Result.Progress]) asks for more bytes.
	//
	// Buf is borrowed until the return, and [Result.Data] is a part of it. Eof
	// says that nothing will follow buf; it is said until a result is without
	// progress.
	//
	// Req is the request whose response is next, the same until its response has
	// ended; nil when no request is outstanding, and always nil for a scanner of
	// requests and for the responses of a keyed framing.
	//
	// An error is always an [*Error]. It says that nothing more of the connection
	// can be understood, also by later calls; a message that has begun and not
	// ended is lost. The result is empty then, but for [Result.Request] when that
	// is known.
	Scan(buf []byte, eof bool, req *Request) (Result, error)
}

// Result is what one call of a [Scanner] or of [Encoder.Scan] found.
type Result struct {
	// Advance is how many bytes of the buffer are done with.
	Advance int
	// Data are the bytes that belong to the message: a part of the advanced
	// bytes. The others are framing that was stripped, or noise.
	Data []byte
	// Begin says that a message begins with Data, End that it ends with Data.
	// Data may be empty with either.
	Begin, End bool
	// Length is the number of all bytes of the message, or -1 as long as that is
	// not known. Once known it is in every further result of the message, and it
	// is never above [Traits.Max]. It is always known at the end.
	Length int64
	// Request describes the request that this is a part of. It belongs to the
	// scanner and is valid until its next call; a copy stays valid. Nil in
	// responses.
	Request *Request
	// Refused says that the message must not be forwarded, and why. It may come
	// in the middle of a message whose Length was not known until then; what came
	// before is to be dropped. The rest of the message is advanced over without
	// Data, until End.
	Refused *Error
	// Key is the key of a response in a keyed framing.
	Key uint64
	// Unsolicited says that the message is no answer to any request (a push of
	// RESP3). It uses up no request.
	Unsolicited bool
	// Close says that the sender of this response closes its connection behind
	// it: the connection takes no further request.
	Close bool
	// Interim is to be written to the TCP client as soon as all requests before
	// this one are answered (100 Continue of HTTP); empty when there is none.
	Interim string
}

// Progress reports whether the scanner got ahead. If not, it needs more bytes.
func (r *Result) Progress() bool { return r.Advance > 0 || r.Begin || r.End }

// Request is what one must know of a request to find and to judge its response.
// It is a value: a copy is independent of the scanner.
type Request struct {
	// Name is the method, command or operation, for logs: from a fixed list, or
	// empty when it is none that this package knows.
	Name string
	// Key is the key of the request in a keyed framing.
	Key uint64
	// Safe says that the request changes nothing at the server: it may be
	// repeated, and may run beside other safe requests of its connection.
	Safe bool
	// Blocks says that the answer may take as long as the request likes (BLPOP):
	// on a shared connection everything behind it would wait.
	Blocks bool
	// Quiet says that the TCP client may expect no response at all. A response
	// message there is nevertheless; [Encoder] leaves out what is not for the
	// client, which may be all of it.
	Quiet bool
	// Last says that the client wants its connection closed behind the response.
	// Nothing more of it is to be scanned.
	Last bool
	// Local says that the request is not forwarded: Reply, which may be empty, is
	// all of its response.
	Local bool
	Reply string

	kind     kind   // the grammar of the response, in the framing's own terms
	keys     int    // memcached: how many keys a retrieval names
	head     bool   // HTTP: the response has no body
	old      bool   // HTTP: version 1.0
	fence    string // memcached: follows the request on TCP, see fence
	question []byte // DNS: header and question section
}

// kind is a grammar of responses.
type kind uint8

// unknown is the length of a message before it is known.
const unknown = -1

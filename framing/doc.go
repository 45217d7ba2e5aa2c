// Package framing finds messages in the byte stream of a TCP connection, and
// turns messages back into such a stream, so that a translator can carry each
// request and each response as one RPC.
//
// # What a framing is
//
// [New] makes a [Framing] from a [Config]. It is the protocol, without a
// connection. For each connection it gives a [Scanner] for what arrives, of
// requests or of responses, and an [Encoder] for what leaves:
//
//	TCP client --Requests--> message --RPC--> message --RequestEncoder--> TCP server
//	TCP client <--ResponseEncoder-- message <--RPC-- message <--Responses-- TCP server
//
// A scanner is handed the bytes that have arrived and says how many of them it
// is done with, which of them belong to a message, and where that begins and
// ends. It knows neither sockets nor clocks and starts nothing, so that one
// goroutine can serve any number of connections. The reasons for its form:
//
//   - The bytes that are not done with stay with the caller, and data is a part
//     of the caller's buffer: nothing is copied. What may have to stay is bounded
//     ([Traits.Window]); a caller with a larger buffer never gets stuck.
//   - A result tells the length of its message as soon as that is known, which
//     may be after some of its data (the last bulk string of a command, the final
//     response behind an interim one). From then on the message can be forwarded
//     as it arrives, since Homa wants the length first. Until then, and for what
//     never tells (chunked bodies, replies with aggregates), the caller collects:
//     at most [Traits.Max] bytes, then the message is refused. Nothing whose
//     length is known is refused later, so that what is under way stays right.
//   - The bytes of a message are forwarded as they came. Where a framing strips
//     its length or delimiter, the encoder at the other side puts it back.
//   - What one must know of a request to find the end of its response is a small
//     value, [Request], which the caller keeps with the request and hands to the
//     scanner of responses.
//   - An encoder scans what it encodes. A message that holds a second request
//     would put its response in front of somebody else's on a shared connection,
//     and one that holds half of a request would swallow somebody else's.
//
// How bytes are cut into calls never changes what is found.
//
// # What is refused
//
// An error ends the connection: nobody knows where the next message begins. A
// message with [Result.Refused] is advanced over, and the connection goes on.
// In both cases [Framing.Answer] has the bytes for the client, in the place of
// the response: responses before it are written first. After a last answer the
// caller should end its own direction and go on reading for a moment, because a
// reset would take the answer away from the client (RFC 9112 section 9.6). The
// same function tells of a server that is unreachable or silent, as long as
// nothing of the response was written. A message may be forwarded while it
// arrives, so that an error can follow data; the RPC is to be aborted then.
//
// A scanner of responses is told no more than the request. If a response begins
// before all of its request is written, the connection must not be used again.
//
// # The types
//
// In a configuration file, with the defaults behind the keys; max, 1,000,000, is
// common to all of them:
//
//	framing: {type: length-prefixed, bytes: 4, order: big, offset: 0, counts: after, keep: true, pipeline: false}
//	framing: {type: delimiter, delimiter: "\n", keep: true, pipeline: false}
//	framing: {type: http1, head: 32KiB}
//	framing: {type: resp, head: 32KiB, depth: 32, connection_state: refuse}
//	framing: {type: memcached, head: 32KiB}
//	framing: {type: dns}
//	framing: {type: stream}
//
// length-prefixed: `bytes` is 1, 2, 4, 8 or varint (7 bits a byte, the
// lowest group first as in Protocol Buffers, or with order: big the highest).
// `offset` bytes precede the length. `counts` says what it counts: what is
// after it, the length too, or all of the message. With keep: false a message
// is what is behind the length; it cannot be empty. Failures are resets.
//
// delimiter: a message ends with the delimiter, which with keep: false is not a
// part of it; then it cannot be empty. Failures are resets.
//
// http1: HTTP/1.0 and 1.1, RFC 9112. The header block must be complete before
// anything of it is forwarded; net/http parses it and decides which body
// follows. Before that, everything is refused that parsers read differently and
// that request smuggling is made of: line ends other than CR LF, control
// characters, folded lines, names that are not tokens, a Content-Length that is
// not a number, more than one of it or of Transfer-Encoding, both together,
// codings other than chunked, chunked in HTTP/1.0, a missing or second Host, a
// Connection option that names one of these, and in chunked bodies sizes,
// line ends and trailer fields that are not exact. Expect: 100-continue is
// answered here ([Result.Interim]) and the server's 100 is left out. CONNECT and
// Upgrade are refused with 501.
//
// resp: Redis, RESP2, RESP3 and inline commands. SUBSCRIBE, MONITOR and their
// like have no single reply and are refused, and so are, unless
// connection_state is pass, commands that change what later commands of a
// connection mean. QUIT is answered here. Pushes are [Result.Unsolicited].
//
// memcached: classic and meta commands. The binary protocol and watch are
// refused. Where the client wants no answer (noreply, q), the encoder of
// requests sends `version` or `mn` behind the command as a fence, whose answer
// ends the response message; the encoder of responses leaves it out. A Homa
// server that is not memcached answers such a command with `MN` alone.
//
// dns: RFC 1035 section 4.2.2. The message is what UDP would carry. Zone
// transfers are refused with NOTIMP.
//
// stream: there are no messages. Bytes travel under the header [Chunk].
//
// # Concurrency and memory
//
// A Framing is safe for concurrent use; a Scanner or Encoder belongs to one
// goroutine at a time. A scanner holds nothing of the stream, apart from the
// stack of open aggregates in resp and one header block of at most 1 KiB in
// http1, which is not parsed again when it is repeated. Errors, refusals, DNS questions and net/http
// allocate; nothing else does.
package framing

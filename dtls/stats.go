package dtls

import "sync/atomic"

// Drop says why a received record, or the rest of a datagram, was not used.
type Drop uint8

// Reasons for dropping.
const (
	DropMalformed      Drop = iota // too short, a length beyond the datagram, or an impossible header
	DropVersion                    // not DTLS 1.0 or 1.2
	DropType                       // a content type that is not allowed there
	DropEpoch                      // an epoch other than 0 and 1
	DropUnknownCID                 // a Connection ID that is not ours
	DropUnknownPeer                // no association or handshake for that address
	DropPlaintext                  // an unprotected record for an established association
	DropStaleHello                 // a late copy of the ClientHello of an established association
	DropHalfOpenTotal              // too many handshakes in progress
	DropHalfOpenSource             // too many handshakes in progress from that source
	DropAssociations               // too many associations
	DropHandshakeQueue             // the queue or the budget of a handshake was exhausted
	DropEarly                      // data overtook a handshake: too much, or from elsewhere
	DropReplay                     // a number seen before, or older than the window
	DropOpenFailed                 // authentication failed
	DropClosed                     // for an association that has ended
	DropUnexpected                 // an authenticated record without a use: late handshake, warning alert
	DropNotServing                 // a ClientHello on a dialled socket
	numDrops
)

var dropNames = [numDrops]string{
	"malformed", "version", "type", "epoch", "unknown_cid", "unknown_peer", "plaintext", "stale_hello",
	"half_open_total", "half_open_source", "associations", "handshake_queue", "early", "replay", "open_failed",
	"closed", "unexpected", "not_serving",
}

// String gives the reason as a metric label.
func (d Drop) String() string {
	if int(d) < len(dropNames) {
		return dropNames[d]
	}
	return "unknown"
}

// Failure says why a handshake did not lead to an association.
type Failure uint8

// Reasons for failed handshakes.
const (
	FailTimeout         Failure = iota // the peer did not answer in time
	FailHello                          // the source never echoed the cookie
	FailNoCertificate                  // the peer showed no certificate
	FailUnknownCA                      // the peer's certificate has no chain to our roots
	FailExpired                        // the peer's certificate is expired or not yet valid
	FailName                           // the server's certificate is for another name
	FailNoName                         // the peer's certificate has no DNS name
	FailUsage                          // the peer's certificate is not for this use
	FailCertificate                    // anything else about the peer's certificate
	FailUnknownIdentity                // no key for the peer's PSK identity
	FailKey                            // the peer's PSK differs from ours
	FailSuite                          // no common cipher suite, curve or extension
	FailAlert                          // the peer refused with an alert
	FailCanceled                       // the caller or the end of the Endpoint stopped it
	FailOther                          // anything else
	numFailures
)

var failureNames = [numFailures]string{
	"timeout", "hello", "no_certificate", "unknown_ca", "expired", "name", "no_name", "usage", "certificate",
	"unknown_identity", "key", "suite", "alert", "canceled", "other",
}

// String gives the reason as a metric label.
func (f Failure) String() string {
	if int(f) < len(failureNames) {
		return failureNames[f]
	}
	return "unknown"
}

// SendError classes the errors of the socket; none of them ends an
// association.
type SendError uint8

// Classes of socket errors.
const (
	SendRefused     SendError = iota // ECONNREFUSED
	SendTooBig                       // EMSGSIZE
	SendUnreachable                  // ENETUNREACH, EHOSTUNREACH, ENETDOWN
	SendNoBuffers                    // EAGAIN, ENOBUFS, ENOMEM
	SendDenied                       // EACCES, EPERM
	SendClosed                       // the socket is closed
	SendOther
	numSendErrors
)

var sendErrorNames = [numSendErrors]string{"refused", "too_big", "unreachable", "no_buffers", "denied", "closed", "other"}

// String gives the class as a metric label.
func (s SendError) String() string {
	if int(s) < len(sendErrorNames) {
		return sendErrorNames[s]
	}
	return "unknown"
}

// Stats is a snapshot of an Endpoint's counters since New.
type Stats struct {
	// Records and Bytes count application records that were delivered, and
	// their plaintext.
	Records, Bytes uint64
	// HandshakesStarted and HandshakesCompleted count both roles;
	// HandshakesStarted - HandshakesCompleted - the sum of Failures are in
	// progress.
	HandshakesStarted, HandshakesCompleted uint64
	// AssociationsClosed counts associations that ended, AssociationsSuperseded
	// those that Config.MaxPerIdentity made end.
	AssociationsClosed, AssociationsSuperseded uint64
	// HalfOpen and Associations are what exists now.
	HalfOpen, Associations int
	// PathCandidates counts paths other than the association's by which an
	// authentic record with the newest number came; Migrations those of them
	// that were validated and that the association moved to.
	PathCandidates, Migrations uint64
	// PathsCrowded counts records that would have made a further candidate
	// while there were enough, PathRefusals calls of SendVia that would have
	// sent more to a candidate than it may get.
	PathsCrowded, PathRefusals uint64
	// LastFlights counts last flights that were repeated on request.
	LastFlights uint64
	// NumberGuard counts datagrams of the handshake library that were held
	// back because a record's number was not below our first.
	NumberGuard uint64
	// Drops, Failures and SendErrors are indexed by their types.
	Drops      [numDrops]uint64
	Failures   [numFailures]uint64
	SendErrors [numSendErrors]uint64
	// ReadErrors counts errors of ReadBatch that were survived.
	ReadErrors uint64
}

// counters are the live form of Stats.
type counters struct {
	records, bytes        atomic.Uint64
	started, completed    atomic.Uint64
	closed, superseded    atomic.Uint64
	candidates, migrated  atomic.Uint64
	crowded, pathRefusals atomic.Uint64
	lastFlights, guard    atomic.Uint64
	readErrors            atomic.Uint64
	drops                 [numDrops]atomic.Uint64
	failures              [numFailures]atomic.Uint64
	sendErrors            [numSendErrors]atomic.Uint64
}

func (c *counters) drop(d Drop) { c.drops[d].Add(1) }

// snapshot reads every counter; they are not read at one instant.
func (c *counters) snapshot() Stats {
	s := Stats{
		Records: c.records.Load(), Bytes: c.bytes.Load(),
		HandshakesStarted: c.started.Load(), HandshakesCompleted: c.completed.Load(),
		AssociationsClosed: c.closed.Load(), AssociationsSuperseded: c.superseded.Load(),
		PathCandidates: c.candidates.Load(), Migrations: c.migrated.Load(),
		PathsCrowded: c.crowded.Load(), PathRefusals: c.pathRefusals.Load(),
		LastFlights: c.lastFlights.Load(), NumberGuard: c.guard.Load(),
		ReadErrors: c.readErrors.Load(),
	}
	for i := range s.Drops {
		s.Drops[i] = c.drops[i].Load()
	}
	for i := range s.Failures {
		s.Failures[i] = c.failures[i].Load()
	}
	for i := range s.SendErrors {
		s.SendErrors[i] = c.sendErrors[i].Load()
	}
	return s
}

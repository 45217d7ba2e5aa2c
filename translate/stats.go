package translate

import "net/netip"

// Stats are the counters of a Forward or Reverse since it began, and its levels
// now.
type Stats struct {
	// Conns are TCP connections now, ConnsTotal all that there were, ConnsRefused
	// those that were not served: too many, or a bad PROXY header; for a Reverse
	// those that failed to connect.
	Conns                    int
	ConnsTotal, ConnsRefused uint64
	// Outstanding are requests under way now, of which Waiting wait for their turn
	// or for a connection. Requests are all that ended, Retries those sent again.
	Outstanding, Waiting int
	Requests, Retries    uint64
	// Failed counts the requests that ended with another Result than OK.
	Failed map[Result]uint64
	// BytesIn are the bytes of messages, or of streams, that came over TCP, BytesOut
	// those that left over TCP.
	BytesIn, BytesOut uint64
	// Buffered are bytes of messages of unknown length that are held now.
	Buffered int64
	// Streams are those of stream framing now.
	Streams int
	// Servers are those of a Reverse.
	Servers []ServerStats
}

// ServerStats tell of one TCP server.
type ServerStats struct {
	Addr netip.AddrPort
	// Up says that it is used: the last attempt to connect did not fail.
	Up bool
	// Conns are connections now, Outstanding requests assigned to it now.
	Conns, Outstanding int
	// Dials counts attempts to connect, DialFailures those that failed.
	Dials, DialFailures uint64
}

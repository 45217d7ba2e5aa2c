// Package rpc is the Go API of Homa: clients that call and servers that answer,
// over any carrier, with hosts of the Linux Homa module or other nodes.
//
// A Node is one Homa endpoint: engine, carrier, clock and lock. Its Call sends a
// request and returns the response; Open does the same with streams. Serve and
// Listen answer requests to a port. A message is 1 to 1,000,000 bytes long.
// Requests are executed at most once, and not in any order. On raw sockets, which
// need Linux and CAP_NET_RAW, a node that serves and calls is
//
//	conn, err := rawip.Open(rawip.Config{}) // all addresses of this host
//	if err != nil {
//		return err
//	}
//	node, err := rpc.NewNode(conn, rpc.Config{}) // conn is the node's from here on
//	if err != nil {
//		return err
//	}
//	defer node.Close()
//	server, err := node.Listen(4000, rpc.HandlerFunc(handler), rpc.ServeConfig{})
//	...
//	response, err := node.Call(ctx, netip.MustParseAddrPort("10.0.0.2:4000"), []byte("hello"))
//
// docs/homa.md has a whole program. Linux hosts call ports up to 32767.
//
// There is no connection, and nothing to dial. A peer that is silent for 100 ms
// is given up, with ErrTimeout; as long as it says that it is working, a call
// waits, so that only a context ends it. Canceling a context ends a call at once
// here; the server is not told, and a handler that works does not learn of it (see
// Handler).
//
// # Goroutines
//
// A call is sent by the caller's goroutine. Each receiver of the carrier has a
// goroutine, which wakes the goroutine that a packet is for, and one more goroutine
// runs timers and sends what the others leave. Handlers have goroutines of their
// own. Close ends all of them.
//
// Everything is safe for concurrent use but what its comment limits. Buffers are
// borrowed for a call, and copied.
package rpc

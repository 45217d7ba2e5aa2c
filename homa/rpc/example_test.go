package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// hosts are two nodes on a network in memory. On real hosts the carrier is
// rawip.Open(rawip.Config{}).
func hosts() (client, server *rpc.Node, close func()) {
	network := &carrier.Network{}
	node := func(addr string) *rpc.Node {
		port, err := network.Attach(netip.MustParseAddr(addr))
		if err != nil {
			panic(err)
		}
		n, err := rpc.NewNode(port, rpc.Config{})
		if err != nil {
			panic(err)
		}
		return n
	}
	client, server = node("10.0.0.1"), node("10.0.0.2")
	return client, server, func() {
		client.Close()
		server.Close()
	}
}

func Example() {
	client, server, closeBoth := hosts()
	defer closeBoth()

	upper := rpc.HandlerFunc(func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		text, err := req.ReadAll()
		if err != nil {
			return err
		}
		_, err = w.Write(bytes.ToUpper(text))
		return err
	})
	if _, err := server.Listen(4000, upper, rpc.ServeConfig{}); err != nil {
		fmt.Println(err)
		return
	}

	response, err := client.Call(context.Background(), netip.MustParseAddrPort("10.0.0.2:4000"), []byte("hello"))
	fmt.Printf("%s, %v\n", response, err)
	// Output: HELLO, <nil>
}

func ExampleNode_Call_errors() {
	client, _, closeBoth := hosts()
	defer closeBoth()

	_, err := client.Call(context.Background(), netip.MustParseAddrPort("10.0.0.2:4001"), []byte("hello"))
	switch {
	case errors.Is(err, rpc.ErrRefused):
		fmt.Println("nobody serves the port")
	case errors.Is(err, rpc.ErrUnreachable):
		fmt.Println("no such host")
	case errors.Is(err, rpc.ErrTimeout):
		fmt.Println("no answer")
	}
	// Output: nobody serves the port
}

func ExampleNode_Open() {
	client, server, closeBoth := hosts()
	defer closeBoth()

	// The server streams too: it never has the whole message in memory.
	count := rpc.HandlerFunc(func(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		n, err := io.Copy(io.Discard, req)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%d bytes", n)
		return err
	})
	if _, err := server.Listen(4000, count, rpc.ServeConfig{}); err != nil {
		fmt.Println(err)
		return
	}

	const length = 300_000
	call, err := client.Open(context.Background(), netip.MustParseAddrPort("10.0.0.2:4000"), length)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer call.Close()
	if _, err := io.Copy(call, strings.NewReader(strings.Repeat("x", length))); err != nil {
		fmt.Println(err)
		return
	}
	response, err := io.ReadAll(call)
	fmt.Printf("%s, %v\n", response, err)
	// Output: 300000 bytes, <nil>
}

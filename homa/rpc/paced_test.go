package rpc_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// TestPaced carries long messages over nodes that pace, none faster than its link.
func TestPaced(t *testing.T) {
	const rate, length = 80_000_000, 200_000
	client, at := pair(t, &carrier.Network{}, rpc.Config{Engine: homa.Config{
		LinkRate: rate, GrantRate: rate, GrantStep: rate / 8 / 1000, Peer: homa.PeerConfig{TimeoutTicks: 10_000},
	}})
	listen(t, at, rpc.ServeConfig{}, echo)
	request := message(length)
	begun := time.Now()
	response, err := client.Call(t.Context(), server, request)
	if err != nil || !bytes.Equal(response, request) {
		t.Fatalf("%d bytes, %v", len(response), err)
	}
	// Each way takes 20 ms, but for a backlog of 1.2 ms that may leave at once.
	if passed := time.Since(begun); passed < 35*time.Millisecond {
		t.Errorf("%d bytes each way at %d bit/s took %v", length, rate, passed)
	}
}

// TestLowWaterEnds reads little after a while, though more is wanted and to come.
func TestLowWaterEnds(t *testing.T) {
	client, at := pair(t, &carrier.Network{}, rpc.Config{})
	read := make(chan int)
	listen(t, at, rpc.ServeConfig{}, func(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
		// The first part is told of with the request itself.
		k, err := req.Read(make([]byte, 5000))
		read <- k
		req.SetLowWater(req.Len())
		for k <= 5000 && err == nil {
			var more int
			more, err = req.Read(make([]byte, req.Len()))
			k += more
		}
		if err != nil {
			return err
		}
		read <- k
		_, err = io.Copy(w, req)
		return err
	})
	request := message(50_000)
	call, err := client.Open(t.Context(), server, len(request))
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	if _, err := call.Write(request[:5000]); err != nil {
		t.Fatal(err)
	}
	<-read
	if _, err := call.Write(request[5000:10_000]); err != nil {
		t.Fatal(err)
	}
	k := <-read // the rest is written after this
	if _, err := call.Write(request[10_000:]); err != nil {
		t.Fatal(err)
	}
	call.SetLowWater(10_000) // before Response, which it holds up for a moment only
	response, err := io.ReadAll(call)
	if err != nil || !bytes.Equal(response, request[k:]) {
		t.Fatalf("%d bytes, %v", len(response), err)
	}
}

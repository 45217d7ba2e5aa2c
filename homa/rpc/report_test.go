package rpc_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/homa/rpc"
)

// reporter is a Port whose network reports what the test wants.
type reporter struct {
	*carrier.Port
	reports chan carrier.Packet
}

func (r *reporter) Receivers() int { return 2 }

func (r *reporter) Waiting(i int) bool { return i == 0 && r.Port.Waiting(0) }

func (r *reporter) Receive(i int, batch []carrier.Packet) (int, error) {
	if i == 0 {
		n, err := r.Port.Receive(0, batch)
		if err != nil {
			close(r.reports)
		}
		return n, err
	}
	p, ok := <-r.reports
	if !ok {
		return 0, context.Canceled
	}
	batch[0] = p
	return 1, nil
}

// TestForgedReports: a report of the network fails calls only if it quotes a packet
// of an RPC that there is.
func TestForgedReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &carrier.Network{}
		p, err := network.Attach(clientAddr)
		if err != nil {
			t.Fatal(err)
		}
		port := &reporter{p, make(chan carrier.Packet)}
		client, err := rpc.NewNode(port, rpc.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		release := make(chan struct{})
		listen(t, newNode(t, network, serverAddr, rpc.Config{}), rpc.ServeConfig{}, func(_ context.Context, _ *rpc.Request, w *rpc.ResponseWriter) error {
			<-release
			_, err := w.Write([]byte{1})
			return err
		})
		begin := func() (*rpc.Call, []byte) {
			call, err := client.Open(t.Context(), server, 1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := call.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			quoted := make([]byte, 64)
			binary.BigEndian.PutUint64(quoted[20:], call.ID())
			return call, quoted
		}
		call, quoted := begin()
		defer call.Close()
		forged := make([]byte, 64)
		binary.BigEndian.PutUint64(forged[20:], call.ID()+2)
		for _, trouble := range []carrier.Trouble{carrier.PortUnreachable, carrier.ProtocolUnreachable, carrier.HostUnreachable} {
			for _, q := range [][]byte{forged, quoted[:27]} {
				port.reports <- carrier.Packet{Addr: serverAddr, Trouble: trouble, Port: 4000, Data: q}
			}
			// The id is another host's.
			port.reports <- carrier.Packet{Addr: netip.MustParseAddr("10.0.0.3"), Trouble: trouble, Port: 4000, Data: quoted}
		}
		time.Sleep(time.Second)
		close(release)
		if n, err := call.Response(); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if err := call.Close(); err != nil {
			t.Error(err)
		}

		release = make(chan struct{})
		call, quoted = begin()
		port.reports <- carrier.Packet{Addr: serverAddr, Trouble: carrier.PortUnreachable, Port: 4000, Data: quoted}
		if _, err := call.Response(); !errors.Is(err, rpc.ErrRefused) {
			t.Errorf("%v", err)
		}
		close(release)
		if err := call.Close(); err != nil {
			t.Error(err)
		}
	})
}

package rawip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tougw/tougw/homa/carrier"
	"github.com/tougw/tougw/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test.
const patience = 10 * time.Second

// network is the client and the server with routers between them.
func network(t *testing.T) *testnet.Net {
	t.Helper()
	testnet.Require(t)
	n, err := testnet.New(testnet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.RoutePlain(); err != nil {
		t.Fatal(err)
	}
	return n
}

// endpoint is a Conn whose packets and reports come out of a channel.
type endpoint struct {
	*Conn
	in chan carrier.Packet
}

func open(t *testing.T, ns *testnet.Namespace, cfg Config) *endpoint {
	t.Helper()
	e := &endpoint{in: make(chan carrier.Packet, 4096)}
	err := ns.Do(func() (err error) {
		e.Conn, err = Open(cfg)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for r := range e.Receivers() {
		go func() { done <- e.receiveAll(r) }()
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		for range e.Receivers() {
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("receiver ended with %v", err)
			}
		}
	})
	return e
}

func (e *endpoint) receiveAll(receiver int) error {
	batch := make([]carrier.Packet, carrier.MaxBatch)
	for i := range batch {
		batch[i].Buf = make([]byte, carrier.MaxPacket)
	}
	for {
		n, err := e.Receive(receiver, batch)
		if err != nil {
			return err
		}
		for _, p := range batch[:n] {
			p.Data, p.Buf = bytes.Clone(p.Data), nil
			e.in <- p
		}
	}
}

// receive waits for what want accepts; what else comes is dropped.
func (e *endpoint) receive(t *testing.T, want func(carrier.Packet) bool) carrier.Packet {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case p := <-e.in:
			if want(p) {
				return p
			}
		case <-timeout:
			t.Fatalf("nothing came; %+v", e.Stats())
		}
	}
}

// send sends packets that must leave.
func (e *endpoint) send(t *testing.T, packets ...carrier.Packet) {
	t.Helper()
	if err := e.Send(packets); err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if p.Trouble != carrier.None {
			t.Fatalf("%d bytes to %s: %v, %v", len(p.Data), p.Addr, p.Trouble, p.Err)
		}
	}
}

func isPacket(p carrier.Packet) bool { return p.Trouble == carrier.None }

// packet is a Homa packet with n bytes behind the common header.
func packet(n int) []byte {
	b := make([]byte, smallest+n)
	binary.BigEndian.PutUint16(b, 0x8000)
	binary.BigEndian.PutUint16(b[offsetDstPort:], 4000)
	b[offsetType] = firstType
	for i := range n {
		b[smallest+i] = byte(i)
	}
	return b
}

// family is one run of a test.
type family struct {
	name           string
	client, server netip.Addr
	ipHeader       int
}

var families = []family{
	{"IPv4", testnet.AppAddr, testnet.ServerAddr, 20},
	{"IPv6", testnet.AppAddr6, testnet.ServerAddr6, 40},
}

package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"

	"github.com/tougw/tougw/homa"
)

// Streams of random numbers, one for each purpose, so that the same seed gives
// the same traffic whatever becomes of the packets.
const (
	streamSpray   = 0
	streamTraffic = 1 // plus the host's number
)

// firstID is the id of each host's first RPC; the ids that follow are two apart.
const firstID = 2

// message is what is known about a message that was sent.
type message struct {
	begun  picos
	took   picos // until the receiver had all of it; 0: it has not
	length int32
	to     int32 // host
}

// host is an engine with the software around it: one that sends messages at
// random times and answers each one it gets.
type host struct {
	run     *run
	number  int
	engine  *homa.Engine
	random  *rand.Rand
	sent    []message // by id
	alarmAt picos     // of the hostTimer that is pending, at its earliest
	buffer  []byte
}

// address is the address of a host in the fabric, and hostAt the reverse.
func address(number int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte(number >> 8), byte(number)})
}

func hostAt(a netip.Addr) int {
	b := a.As4()
	return int(b[2])<<8 | int(b[3])
}

func newHost(r *run, number int, config homa.Config) (*host, error) {
	engine, err := homa.New(config)
	if err != nil {
		return nil, err
	}
	if err := engine.Listen(messagePort); err != nil {
		return nil, err
	}
	return &host{
		run: r, number: number, engine: engine, alarmAt: math.MaxInt64,
		random: rand.New(rand.NewPCG(r.config.Seed, streamTraffic+uint64(number))),
	}, nil
}

// instant rounds down, so that the engine's clock never runs ahead.
func instant(now picos) homa.Instant { return homa.Instant(now / nanosecond) }

func (h *host) receive(now picos, p *packet) {
	h.engine.ReceiveVirtual(instant(now), address(int(p.src)), p.head[:p.headSize], int(p.dataSize))
	h.settle(now)
}

func (h *host) send(now picos, p *packet) bool {
	out, ok := h.engine.Transmit(instant(now), h.buffer[:0])
	if !ok {
		return false
	}
	h.buffer = out.Packet
	if len(out.Packet) > headBytes {
		h.run.fail(fmt.Errorf("a packet of type %v has %d bytes of header", out.Type, len(out.Packet)))
		return false
	}
	p.headSize, p.dataSize = int32(copy(p.head[:], out.Packet)), int32(out.DataLength)
	p.priority, p.dst = out.Priority, int32(hostAt(out.To))
	h.arm(now)
	return true
}

func (h *host) alarm(now picos, reason eventKind) {
	switch {
	case reason == hostSends:
		h.call(now)
		h.schedule(now)
	case now >= h.alarmAt:
		h.alarmAt = math.MaxInt64
		h.engine.Advance(instant(now))
		h.settle(now)
	}
}

// schedule draws the time of the next message.
func (h *host) schedule(now picos) {
	gap := picos(h.random.ExpFloat64() / h.run.rate * float64(second))
	h.run.network.wake(h.number, now+gap, hostSends)
}

// call sends a message of random length to a random other host.
func (h *host) call(now picos) {
	length := h.run.config.Workload.Quantile(h.random.Float64())
	to := h.random.IntN(len(h.run.hosts) - 1)
	if to >= h.number {
		to++
	}
	h.callTo(now, length, to)
}

func (h *host) callTo(now picos, length, to int) {
	rpc, err := h.engine.Call(instant(now), homa.CallOptions{To: netip.AddrPortFrom(address(to), messagePort), Length: length})
	if err != nil {
		h.run.fail(fmt.Errorf("a message of %d bytes: %w", length, err))
		return
	}
	if want := uint64(firstID + 2*len(h.sent)); rpc.ID() != want {
		h.run.fail(fmt.Errorf("RPC %d of host %d, want id %d", rpc.ID(), h.number, want))
		return
	}
	h.sent = append(h.sent, message{begun: now, length: int32(length), to: int32(to)})
	h.run.called(now)
	h.settle(now)
}

// settle deals with what the engine has to say after it was called.
func (h *host) settle(now picos) {
	for {
		e, ok := h.engine.Event()
		if !ok {
			break
		}
		switch {
		case e.Kind == homa.Failed:
			h.run.fail(fmt.Errorf("host %d, RPC %d: %w", h.number, e.RPC.ID(), e.Err))
		case e.Kind == homa.Complete && !e.RPC.Client():
			h.run.arrived(now, h.number, e.RPC)
			if err := e.RPC.Reply(instant(now), responseLength); err != nil {
				h.run.fail(err)
			}
		}
	}
	h.run.network.pull(h.number)
	h.arm(now)
}

// arm sees to it that alarm is called when the engine wants it.
func (h *host) arm(now picos) {
	deadline, ok := h.engine.Deadline()
	if !ok {
		return
	}
	at := max(now, picos(deadline)*nanosecond)
	if at >= h.alarmAt {
		return
	}
	h.alarmAt = at
	h.run.network.wake(h.number, at, hostTimer)
}

var errTwice = errors.New("a message arrived twice")

// arrived records that host number has all of a message.
func (r *run) arrived(now picos, number int, rpc *homa.RPC) {
	from := hostAt(rpc.Peer().Addr())
	i := (rpc.ID()&^1 - firstID) / 2
	if from >= len(r.hosts) || i >= uint64(len(r.hosts[from].sent)) {
		r.fail(fmt.Errorf("host %d got RPC %d of host %d, which was never sent", number, rpc.ID(), from))
		return
	}
	m := &r.hosts[from].sent[i]
	switch {
	case m.took != 0:
		r.fail(fmt.Errorf("host %d, RPC %d: %w", from, rpc.ID(), errTwice))
	case int(m.to) != number || rpc.ReceiveLength() != int(m.length):
		r.fail(fmt.Errorf("host %d got %d bytes as RPC %d of host %d; they are %d for host %d",
			number, rpc.ReceiveLength(), rpc.ID(), from, m.length, m.to))
	}
	m.took = now - m.begun
	r.completed++
	if m.begun >= r.from && m.begun < r.to {
		r.missing--
	}
}

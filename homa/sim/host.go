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

// message is what is known about a message: the request or the response of an RPC.
type message struct {
	begun  picos // when its sender was given it; for a response 0: not yet
	took   picos // until its receiver had all of it; 0: it has not
	length int32
}

// call is an RPC.
type call struct {
	request, response message
	service           picos // the time that the server takes to answer
	to                int32 // server
}

// reply is a response that waits for its time.
type reply struct {
	server int
	rpc    *homa.RPC
	call   *call
}

// host is an engine with the software around it: one that calls others at
// random times and answers who calls it.
type host struct {
	run     *run
	number  int
	engine  *homa.Engine
	random  *rand.Rand
	calls   []*call // by id
	greeted int     // other hosts that it has been introduced to
	alarmAt picos   // of the hostTimer that is pending, at its earliest
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
	case reason == hostSends && h.greeted < len(h.run.hosts)-1:
		h.greet(now)
	case reason == hostSends:
		h.call(now)
		h.schedule(now)
	case now >= h.alarmAt:
		h.alarmAt = math.MaxInt64
		h.engine.Advance(instant(now))
		h.settle(now)
	}
}

// introduction is the time that a host takes to send a byte to another one, so
// slowly that no queue builds up: a packet with its response and the cutoffs both ways.
const introduction = 500 * nanosecond

// introduce makes the host send a message of one byte to each other one, which then
// tells it its cutoffs. Each host begins with its neighbour, so that no
// two send to the same one at a time.
func (h *host) introduce() { h.run.network.wake(h.number, 0, hostSends) }

func (h *host) greet(now picos) {
	h.greeted++
	h.callTo(now, (h.number+h.greeted)%len(h.run.hosts), 1, 1, 0)
	if h.greeted < len(h.run.hosts)-1 {
		h.run.network.wake(h.number, now+introduction, hostSends)
	}
}

// schedule draws the time of the next call.
func (h *host) schedule(now picos) {
	gap := picos(h.random.ExpFloat64() / h.run.rate * float64(second))
	h.run.network.wake(h.number, now+gap, hostSends)
}

// call sends a message of random length to a random other host, which is to answer
// with another one, or with one byte.
func (h *host) call(now picos) {
	w := h.run.config.Workload
	length, response := w.Quantile(h.random.Float64()), 1
	if h.run.answers {
		response = w.Quantile(h.random.Float64())
	}
	to := h.random.IntN(len(h.run.hosts) - 1)
	if to >= h.number {
		to++
	}
	h.callTo(now, to, length, response, picos(h.random.ExpFloat64()*float64(meanService)))
}

func (h *host) callTo(now picos, to, length, response int, service picos) {
	rpc, err := h.engine.Call(instant(now), homa.CallOptions{To: netip.AddrPortFrom(address(to), messagePort), Length: length})
	if err != nil {
		h.run.fail(fmt.Errorf("a message of %d bytes: %w", length, err))
		return
	}
	if want := uint64(firstID + 2*len(h.calls)); rpc.ID() != want {
		h.run.fail(fmt.Errorf("RPC %d of host %d, want id %d", rpc.ID(), h.number, want))
		return
	}
	c := &call{
		request: message{begun: now, length: int32(length)}, response: message{length: int32(response)},
		service: service, to: int32(to),
	}
	h.calls = append(h.calls, c)
	h.run.began(now)
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
		case e.Kind == homa.Complete:
			h.run.arrived(now, h.number, e.RPC)
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

// arrived records that a host has all of a request or response.
func (r *run) arrived(now picos, number int, rpc *homa.RPC) {
	client, server := hostAt(rpc.Peer().Addr()), number
	if rpc.Client() {
		client, server = server, client
	}
	i := (rpc.ID()&^1 - firstID) / 2
	if client >= len(r.hosts) || i >= uint64(len(r.hosts[client].calls)) || int(r.hosts[client].calls[i].to) != server {
		r.fail(fmt.Errorf("host %d got RPC %d of host %d to host %d, which was never called", number, rpc.ID(), client, server))
		return
	}
	c := r.hosts[client].calls[i]
	m := &c.request
	if rpc.Client() {
		m = &c.response
	}
	switch {
	case m.took != 0:
		r.fail(fmt.Errorf("host %d, RPC %d: %w", number, rpc.ID(), errTwice))
	case m.begun == 0 && m == &c.response || rpc.ReceiveLength() != int(m.length):
		r.fail(fmt.Errorf("host %d got %d bytes as RPC %d of host %d; it was to get %d", number, rpc.ReceiveLength(), rpc.ID(), client, m.length))
	}
	m.took = now - m.begun
	if r.answers || m == &c.request {
		r.completed++
		if r.measures(m) {
			r.missing--
		}
	}
	if m == &c.request {
		r.plan(now+c.service, reply{server, rpc, c})
	}
}

// plan makes a server answer at a later time.
func (r *run) plan(at picos, p reply) {
	i := len(r.replies)
	if k := len(r.unused) - 1; k >= 0 {
		i = int(r.unused[k])
		r.unused = r.unused[:k]
		r.replies[i] = p
	} else {
		r.replies = append(r.replies, p)
	}
	r.network.calendar.push(at, taskDue, uint32(i))
}

// answer sends the response whose time has come.
func (r *run) answer(now picos, i uint32) {
	p := r.replies[i]
	r.replies[i] = reply{}
	r.unused = append(r.unused, i)
	p.call.response.begun = now
	if r.answers {
		r.began(now)
	}
	if err := p.rpc.Reply(instant(now), int(p.call.response.length)); err != nil {
		r.fail(fmt.Errorf("host %d answers RPC %d: %w", p.server, p.rpc.ID(), err))
	}
	r.hosts[p.server].settle(now)
}

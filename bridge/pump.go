package bridge

import (
	"io"
	"sync/atomic"
	"syscall"

	"github.com/tougw/tougw/internal/packet"
)

// yieldAfter is how many bytes a pump moves before it lets other pumps run: 16 full buffers, about a millisecond.
const yieldAfter = 16 * packet.Size

// States of a pump. Between two events it is idle or stalled and has no
// goroutine.
const (
	idle    uint32 = iota // waits for its source to become readable
	stalled               // waits for its sink to become writable
	running               // a worker has it, or it is in the queue of the workers
	again                 // as running, and an event came meanwhile
	dead                  // the flow is over; final
)

// pump moves the bytes of one direction of a flow.
type pump struct {
	f    *Flow
	from int   // index of the source in f.end; the sink is 1-from
	next *pump // in the queue of the workers; theirs

	state atomic.Uint32

	// held[off:n] was read and is not written. Owned by whoever put the state
	// to running or dead.
	held   *packet.Buffer
	off, n int
	eof    bool // the source has sent FIN

	grow    uint64 // at how many bytes the buffers grow next
	readMax int    // most bytes to read at a time

	bytes atomic.Uint64 // written to the sink
	// done: FIN was passed on. drained: done, or the source has failed and all
	// that had come from it is written.
	done, drained atomic.Bool
}

func (p *pump) init(f *Flow, from int) {
	p.f, p.from = f, from
	p.readMax = p.fullRead()
	if p.grow = f.b.cfg.growAfter(); p.grow != never {
		p.readMax = startRead
	}
}

// wake starts the pump if it waits in state wait, and makes a running one look
// once more. It takes no lock and allocates nothing.
func (p *pump) wake(wait uint32) {
	for {
		switch p.state.Load() {
		case wait:
			if p.state.CompareAndSwap(wait, running) {
				p.f.b.workers.run(p)
				return
			}
		case running:
			if p.state.CompareAndSwap(running, again) {
				return
			}
		default: // waits for something else, or need not be told
			return
		}
	}
}

// wakeAny starts the pump whatever it waits for.
func (p *pump) wakeAny() {
	p.wake(idle)
	p.wake(stalled)
}

// kill ends the pump after the flow is over: at once, or by its goroutine.
func (p *pump) kill() {
	for {
		switch s := p.state.Load(); s {
		case idle, stalled:
			if p.state.CompareAndSwap(s, dead) {
				p.release()
				p.f.pumpEnded()
				return
			}
		case running:
			// A look at f.over follows, because over was set before.
			if p.state.CompareAndSwap(running, again) {
				return
			}
		default:
			return
		}
	}
}

// run works until the pump has to wait or is dead. It reports whether it only
// stopped to let others have their turn, and is to be called again.
func (p *pump) run() (more bool) {
	for {
		next := p.move()
		if p.f.settle() {
			p.release()
			p.state.Store(dead)
			p.f.pumpEnded()
			return false
		}
		if next == running {
			return true
		}
		if p.state.CompareAndSwap(running, next) {
			return false
		}
		p.state.Store(running)
	}
}

// fresh forgets the events so far. It precedes each look at a stream that
// shows what they were about.
func (p *pump) fresh() {
	if p.state.Load() == again {
		p.state.CompareAndSwap(again, running)
	}
}

// move moves bytes until the source or the sink would block, the direction has
// ended or the flow is over. It returns the state to wait in, or running when
// others shall have their turn.
func (p *pump) move() (next uint32) {
	f := p.f
	src, dst := f.end[p.from], f.end[1-p.from]
	var since uint64
	for !p.drained.Load() && !f.over.Load() && !f.broken[1-p.from].Load() {
		// 1. What is left of the last read goes first.
		if p.off < p.n {
			p.fresh()
			n, err := dst.Write(p.held.B[p.off:p.n])
			p.off += n
			since += uint64(n)
			p.bytes.Add(uint64(n))
			f.touch(n)
			if p.off < p.n {
				if err == nil || err == syscall.EAGAIN {
					return stalled
				}
				f.fail(1-p.from, err)
				break
			}
			p.growBuffers(src, dst)
		}
		// 2. FIN follows the last byte.
		if p.eof {
			if err := dst.CloseWrite(); err != nil {
				f.fail(1-p.from, err)
				break
			}
			p.done.Store(true)
			p.drained.Store(true)
			break
		}
		// 3. Others have their turn; a buffer is not kept meanwhile.
		if since >= yieldAfter {
			p.release()
			return running
		}
		// 4. The next bytes.
		if p.held == nil {
			p.held = packet.Get()
		}
		p.off, p.n = 0, 0
		p.fresh()
		n, err := src.Read(p.held.B[:p.readMax])
		switch {
		case n > 0:
			p.n = n
		case err == nil || err == syscall.EAGAIN:
			p.release()
			return idle
		case err == io.EOF:
			p.eof = true
		default:
			f.fail(p.from, err)
			p.drained.Store(true)
		}
	}
	p.release()
	return idle
}

// fullRead is how much to read at a time from a source that has plenty: as much
// as the sink wants to be given at once.
func (p *pump) fullRead() int {
	if n := p.f.end[1-p.from].WriteSize(); n > 0 && n < packet.Size {
		return n
	}
	return packet.Size
}

func (p *pump) release() {
	if p.held != nil {
		p.held.Release()
		p.held = nil
	}
	p.off, p.n = 0, 0
}

// growBuffers raises the bounds of both streams once the bytes moved have
// proven that somebody reads at the end of the path, and again whenever they
// have doubled.
func (p *pump) growBuffers(src, dst Stream) {
	total := p.bytes.Load()
	if total < p.grow {
		return
	}
	p.readMax = p.fullRead()
	limit := uint64(p.f.b.cfg.BufferMax)
	size := min(total, limit)
	src.SetBuffers(int(size), 0)
	dst.SetBuffers(0, int(size))
	p.grow = 2 * total
	if size == limit {
		p.grow = never
	}
}

package dtls

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/tougw/tougw/internal/udp"
)

// Outbound, in order: the caller cuts, Seal protects each record in place,
// Send hands a batch of them to the socket.

// Seal protects b[head:head+n] in place as an application data record, where
// head and tail are those of Overhead, and returns the record's length; the
// record begins at b[0]. n is at most 16384, and b must have head+n+tail bytes.
// It returns ErrExhausted when the limits of the key are reached, and the
// reason of the end once the association has ended. What was sealed should be
// sent, or be lost: its number is used.
func (a *Association) Seal(b []byte, n int) (int, error) {
	if a.closed.Load() {
		return 0, a.Err()
	}
	p := &a.sealing
	if n < 0 || n > maxPlaintext {
		return 0, errTooLarge
	}
	size := p.head() + n + p.tail()
	if len(b) < size {
		return 0, errShortBuffer
	}
	seq := a.number.Add(1) - 1
	if seq-firstNumber >= a.limits.Records || a.outBytes.Add(uint64(size)) > a.limits.Bytes {
		return 0, ErrExhausted
	}
	sc := scratches.Get().(*scratch)
	size = p.seal(sc, typeApplicationData, seq, b, n)
	scratches.Put(sc)
	return size, nil
}

// Send sends b, which holds sealed records of size bytes each (the last may be
// shorter), as one datagram each, by one call of the socket. It borrows b. The
// socket's error is counted and returned; it does not end the association, and
// the records count as lost.
func (a *Association) Send(b []byte, size int) error {
	if a.closed.Load() {
		return a.Err()
	}
	if len(b) == 0 {
		return nil
	}
	return a.write(b, size)
}

// Run is a run of records of Size bytes each, of which the last may be shorter,
// and Len bytes in all. It is another name for an unnamed type, as Path is.
type Run = struct{ Len, Size int }

// maxRuns is how many runs one call of the socket gets.
const maxRuns = 64

// runMessages is a batch for a socket; the messages are lent to an interface
// method, so they would be allocated for each call.
type runMessages [maxRuns]udp.Message

var runBatches = sync.Pool{New: func() any { return new(runMessages) }}

// SendRuns sends the runs of sealed records that b holds one behind the other,
// by as few calls of the socket as it takes. It borrows b and runs, whose
// lengths must add up to no more than that of b. Errors of the socket are
// counted as those of Send, and concern one run each; it returns how many records
// were in these, which count as lost.
func (a *Association) SendRuns(b []byte, runs []Run) (lost int) {
	batch := runBatches.Get().(*runMessages)
	for len(runs) > 0 {
		n := min(len(runs), maxRuns)
		used := 0
		for i, r := range runs[:n] {
			batch[i] = udp.Message{Buf: b[used:][:r.Len], N: r.Len}
			if r.Size > 0 && r.Size < r.Len {
				batch[i].Segment = r.Size
			}
			used += r.Len
		}
		lost += a.writeRuns(batch[:n])
		clear(batch[:n]) // do not keep the caller's buffer alive
		b, runs = b[used:], runs[n:]
	}
	runBatches.Put(batch)
	return lost
}

// writeRuns sends messages by the association's path, and returns how many
// records were in those that failed.
func (a *Association) writeRuns(ms []udp.Message) (lost int) {
	for len(ms) > 0 {
		failed := 0
		if p := a.paths.current.Load(); !a.closed.Load() {
			for i := range ms {
				ms[i].Addr, ms[i].Local = p.remote, p.local
			}
			n, err := p.w.sock.WriteBatch(ms)
			if err == nil {
				return lost
			}
			p.w.sendFailed(err)
			a.fallBack(p, err)
			failed = n
		}
		lost += records(&ms[failed])
		ms = ms[failed+1:]
	}
	return lost
}

// records is how many records a message holds.
func records(m *udp.Message) int {
	if m.Segment == 0 {
		return 1
	}
	return (m.N + m.Segment - 1) / m.Segment
}

// write sends b as datagrams of size bytes and counts the error.
func (w *worker) write(b []byte, size int, to netip.AddrPort, from netip.Addr) error {
	sc := scratches.Get().(*scratch)
	m := &sc.msg[0]
	*m = udp.Message{Buf: b, N: len(b), Addr: to, Local: from}
	if size > 0 && size < len(b) {
		m.Segment = size
	}
	_, err := w.sock.WriteBatch(sc.msg[:])
	*m = udp.Message{} // do not keep the caller's buffer alive
	scratches.Put(sc)
	if err != nil {
		w.sendFailed(err)
	}
	return err
}

func (w *worker) sendFailed(err error) { w.e.count.sendErrors[classify(err)].Add(1) }

// classify gives the class of a socket error.
func classify(err error) SendError {
	var no syscall.Errno
	if errors.As(err, &no) {
		switch no {
		case syscall.ECONNREFUSED:
			return SendRefused
		case syscall.EMSGSIZE:
			return SendTooBig
		case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN:
			return SendUnreachable
		case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
			return SendNoBuffers
		case syscall.EACCES, syscall.EPERM:
			return SendDenied
		}
	}
	if errors.Is(err, net.ErrClosed) {
		return SendClosed
	}
	return SendOther
}

// sendAlert sends an alert in a record of our own; it is the only record that
// may pass the configured limits, up to the last number there is.
func (a *Association) sendAlert(al Alert) {
	p := &a.sealing
	b := make([]byte, p.head()+2+p.tail())
	seq := a.number.Add(1) - 1
	if seq >= hardLimit {
		return
	}
	head := p.head()
	b[head], b[head+1] = 2, uint8(al) // fatal
	if al == AlertCloseNotify || al == AlertNoRenegotiation {
		b[head] = 1 // warning
	}
	sc := scratches.Get().(*scratch)
	n := p.seal(sc, typeAlert, seq, b, 2)
	scratches.Put(sc)
	_ = a.write(b[:n], 0) // counted; alerts are not repeated
}

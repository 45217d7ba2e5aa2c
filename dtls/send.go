package dtls

import (
	"errors"
	"net"
	"net/netip"
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
		w.e.count.sendErrors[classify(err)].Add(1)
	}
	return err
}

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

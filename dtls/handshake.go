package dtls

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pion "github.com/pion/dtls/v3"
)

// Causes for which we end a handshake ourselves.
var (
	errTimeout = fmt.Errorf("peer did not answer: %w", syscall.ETIMEDOUT)
	errHello   = fmt.Errorf("cookie was not echoed: %w", syscall.ETIMEDOUT)
	errKey     = errors.New("peer's key does not fit its identity")
	errStopped = fmt.Errorf("endpoint closed: %w", net.ErrClosed)
)

const (
	// earlyRecords and earlyBytes bound the data kept that overtakes the last
	// flight: more than one batch of segmentation offload.
	earlyRecords = 64
	earlyBytes   = 1 << 16
	// keyGrace is how long the client's Finished message may fail to be
	// accepted with a PSK before the key counts as wrong: the library ignores
	// it silently. It comes in the datagram that names the identity, so that
	// a client with the right key is done within microseconds.
	keyGrace = 500 * time.Millisecond
	// handshakeMTU makes datagrams of at most 1200 bytes: the library takes it
	// for the size of a fragment without its 25 bytes of headers.
	handshakeMTU = 1200 - headerLen - 12
)

// handshake is one run of the library. Its goroutine calls run; the receive
// goroutine gives it records.
type handshake struct {
	w      *worker
	from   tuple
	client bool
	dial   *DialParams // on a client
	random [32]byte    // the client's, on a server
	cid    uint64      // ours, 0 without
	began  time.Time
	conn   *feedConn
	ctx    context.Context
	cancel context.CancelCauseFunc
	// proven says that the client has echoed the cookie.
	proven atomic.Bool

	mu    sync.Mutex
	early [][]byte // protected records that came before the end
	size  int      // of early
	assoc *Association
	// taken says that nothing of the library's reaches the socket any more.
	taken bool
	// last is the library's last flight, as datagrams.
	last [][]byte
	// held is a fatal alert of the library, kept back so that it can say more
	// precisely why.
	held []byte
	// plainNumber is one more than the highest record number of epoch 0 used.
	plainNumber uint64
	refused     *AlertError // sent by the peer
	sendErr     error       // last of the socket
	identity    string      // PSK identity that the client named
	asked       bool        // for the key of identity
	unknown     bool        // there is none
	protected   bool        // a protected handshake record came
	keyTimer    *time.Timer
}

func newHandshake(w *worker, from tuple, client bool) *handshake {
	h := &handshake{w: w, from: from, client: client, began: time.Now()}
	h.ctx, h.cancel = context.WithCancelCause(w.ctx)
	budget := acceptBudget
	if client {
		budget = dialBudget
	}
	h.conn = newFeedConn(from.remote, w.sock.LocalAddr(), budget, h.write)
	if w.e.cfg.ConnectionID {
		h.cid = w.e.cids.add(w.id, h)
	}
	return h
}

// run does the handshake and takes over. It reports and counts a failure.
func (h *handshake) run() (*Association, error) {
	e := h.w.e
	e.count.started.Add(1)
	ctx, cancel := context.WithTimeoutCause(h.ctx, e.cfg.HandshakeTimeout, errTimeout)
	defer cancel()
	if !h.client {
		t := time.AfterFunc(e.cfg.HelloTimeout, func() {
			if !h.proven.Load() {
				h.cancel(errHello)
			}
		})
		defer t.Stop()
	}
	defer h.cancel(nil)
	a, err := h.perform(ctx)
	h.mu.Lock()
	if h.keyTimer != nil {
		h.keyTimer.Stop()
	}
	h.mu.Unlock()
	if err == nil {
		e.count.completed.Add(1)
		return a, nil
	}
	h.w.abandon(h)
	why, alert, err := h.explain(ctx, err)
	h.sendHeld(alert)
	_ = h.conn.Close() // always nil
	e.count.failures[why].Add(1)
	if why == FailHello {
		return nil, err
	}
	e.cfg.Logger.Debug("handshake failed", slog.Any("remote", h.from.remote), slog.String("reason", why.String()), slog.Any("err", err))
	if f := e.cfg.OnFailure; f != nil {
		f(h.from.remote, why, err)
	}
	return nil, err
}

// perform runs the library and takes over from it.
func (h *handshake) perform(ctx context.Context) (*Association, error) {
	var conn *pion.Conn
	var err error
	if h.client {
		conn, err = pion.ClientWithOptions(h.conn, h.conn.remote, h.clientOptions()...)
	} else {
		conn, err = pion.ServerWithOptions(h.conn, h.conn.remote, h.serverOptions()...)
	}
	if err != nil {
		return nil, err
	}
	// The library's goroutines end with Close; what it still writes is dropped.
	defer func() {
		h.mu.Lock()
		h.taken = true
		h.mu.Unlock()
		_ = conn.Close() // reports only what our own connection returned: nothing
	}()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return h.takeOver(conn)
}

// write is called by the library with a datagram for the socket.
func (h *handshake) write(b []byte) {
	if !h.mayWrite(b) {
		return
	}
	if err := h.w.write(b, 0, h.from.remote, h.from.local); err != nil {
		h.mu.Lock()
		h.sendErr = err
		h.mu.Unlock()
	}
}

// mayWrite decides about a datagram of the library.
func (h *handshake) mayWrite(b []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken {
		return false
	}
	if !h.inspect(b) {
		h.w.e.count.guard.Add(1)
		return false
	}
	return h.held == nil
}

// inspect looks at the records of a datagram of the library. It reports false
// for a datagram that must not be sent: with a protected record whose number is
// one of ours. It keeps the last flight, and a fatal alert. The caller holds mu.
func (h *handshake) inspect(b []byte) bool {
	flight := false
	for rest := b; len(rest) >= headerLen; {
		v := binary.BigEndian.Uint64(rest[epochOffset:])
		epoch, seq := v>>48, v&(1<<48-1)
		if epoch != 0 {
			if seq >= firstNumber {
				return false
			}
			flight = true
			if rest[0] == typeCID {
				break // the peer's Connection ID hides the length; it is the last record
			}
		}
		n := headerLen + int(binary.BigEndian.Uint16(rest[11:]))
		if n > len(rest) {
			return false
		}
		body := rest[headerLen:n]
		if epoch == 0 {
			h.plainNumber = max(h.plainNumber, seq+1)
			switch {
			case rest[0] == typeChangeCipherSpec:
				flight = true
				h.last = nil // a flight's protected part begins anew
			case rest[0] == typeHandshake && len(body) > 0 && body[0] == msgServerHello:
				h.proven.Store(true)
			case rest[0] == typeAlert && len(body) == 2 && body[0] == alertFatal:
				h.held = append([]byte(nil), rest[:n]...)
			}
		}
		rest = rest[n:]
	}
	if flight && !h.client {
		h.last = append(h.last, append([]byte(nil), b...))
	}
	return true
}

// sendHeld sends the fatal alert that the library wanted to send, or one of our
// own if the failure asks for it.
func (h *handshake) sendHeld(alert Alert) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.held
	if b == nil {
		if alert == AlertCloseNotify {
			return
		}
		b = []byte{typeAlert, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, alertFatal, 0}
		binary.BigEndian.PutUint64(b[epochOffset:], h.plainNumber)
	}
	if alert != AlertCloseNotify {
		b[headerLen+1] = uint8(alert)
	}
	_ = h.w.write(b, 0, h.from.remote, h.from.local) // counted; alerts are not repeated
}

const (
	msgServerHello = 2
	alertFatal     = 2
)

// alerted notes an unprotected alert from the peer.
func (h *handshake) alerted(a Alert, level uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused == nil && (level == alertFatal || a == AlertCloseNotify) {
		h.refused = &AlertError{Alert: a}
	}
}

// established gives the association once there is one.
func (h *handshake) established() *Association {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.assoc
}

// keep copies a protected record for the time after the handshake, if there is
// room and it came by the handshake's path. Once that time has come it gives the
// association instead.
func (h *handshake) keep(rec []byte, from path) (a *Association, kept bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.assoc != nil {
		return h.assoc, false
	}
	if from != (path{h.from, h.w}) || len(h.early) >= earlyRecords || h.size+len(rec) > earlyBytes {
		return nil, false
	}
	h.early = append(h.early, append([]byte(nil), rec...))
	h.size += len(rec)
	return nil, true
}

// sawProtected notes a record that may be the client's Finished message.
func (h *handshake) sawProtected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.protected = true
	h.watchKey()
}

// watchKey gives up a PSK handshake whose Finished message is not accepted. The
// caller holds mu.
func (h *handshake) watchKey() {
	if h.asked && h.protected && h.keyTimer == nil {
		h.keyTimer = time.AfterFunc(keyGrace, func() { h.cancel(errKey) })
	}
}

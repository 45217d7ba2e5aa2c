package dtls

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"time"

	pion "github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/prf"
)

// exported is what the library exports of a completed handshake, by the field
// names of its gob encoding.
type exported struct {
	HandshakeComplete  bool
	LocalEpoch         uint16
	RemoteEpoch        uint16
	LocalRandom        [32]byte
	RemoteRandom       [32]byte
	CipherSuiteID      uint16
	MasterSecret       []byte
	SequenceNumber     uint64
	PeerCertificates   [][]byte
	IdentityHint       []byte
	LocalConnectionID  []byte
	RemoteConnectionID []byte
	IsClient           bool
}

// export reads the state of a completed handshake.
func export(conn *pion.Conn) (*exported, error) {
	st, ok := conn.ConnectionState()
	if !ok {
		return nil, errors.New("handshake library has no state to export")
	}
	b, err := st.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("export of the handshake: %w", err)
	}
	defer clear(b)
	var x exported
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&x); err != nil {
		return nil, fmt.Errorf("export of the handshake: %w", err)
	}
	return &x, nil
}

// takeOver makes the association of a completed handshake. From its first line
// on nothing of the library's is sent.
func (h *handshake) takeOver(conn *pion.Conn) (*Association, error) {
	h.mu.Lock()
	h.taken = true
	last := h.last
	h.mu.Unlock()
	x, err := export(conn)
	if err != nil {
		return nil, err
	}
	defer clear(x.MasterSecret)
	a, err := h.associate(x)
	if err != nil {
		return nil, err
	}
	if !h.client {
		a.lastFlight = last
	}

	// Events for the association follow one another under its mu; whoever
	// receives for it now waits a moment.
	a.mu.Lock()
	if !h.w.establish(a, h) {
		a.mu.Unlock()
		return nil, errStopped
	}
	h.mu.Lock()
	h.assoc = a
	early := h.early
	h.early, h.size = nil, 0
	h.mu.Unlock()
	rcv := h.deliverEarly(a, early)
	a.mu.Unlock()
	if rcv != nil {
		rcv.Flush()
	}
	return a, nil
}

// deliverEarly opens the records that overtook the end of the handshake, for
// the holder of a.mu, and gives the receiver that has to be flushed without it,
// nil if there is none.
func (h *handshake) deliverEarly(a *Association, early [][]byte) (rcv Receiver) {
	e := h.w.e
	a.arrived = path{h.from, h.w} // what came elsewhere was not kept
	var run [][]byte
	var size int
	deliver := func() {
		if len(run) == 0 {
			return
		}
		if rcv == nil {
			rcv = e.events.NewReceiver()
		}
		e.count.records.Add(uint64(len(run)))
		e.count.bytes.Add(uint64(size))
		rcv.Receive(a, run)
		run, size = run[:0], 0
	}
	for _, rec := range early {
		hd, _, drop := parseHeader(rec)
		if drop != numDrops {
			continue // was well-formed when it was kept
		}
		typ, plain, _, drop := a.open(hd, rec)
		switch {
		case drop != numDrops:
			e.count.drop(drop)
		case typ == typeApplicationData:
			if len(plain) > 0 {
				run = append(run, plain)
				size += len(plain)
			}
		default:
			// The Finished message that the library has used is among them.
			deliver()
			a.control(typ, plain, false)
		}
	}
	deliver()
	a.publish()
	return rcv
}

// associate derives the keys and makes the association.
func (h *handshake) associate(x *exported) (*Association, error) {
	e := h.w.e
	suite := Suite(x.CipherSuiteID)
	p := suites[suite]
	switch {
	case !x.HandshakeComplete || x.LocalEpoch != 1 || x.RemoteEpoch != 1 || x.IsClient != h.client:
		return nil, fmt.Errorf("handshake ended in an unexpected state: epochs %d and %d", x.LocalEpoch, x.RemoteEpoch)
	case p == nil:
		return nil, fmt.Errorf("handshake ended with %v", suite)
	case x.SequenceNumber > maxLibraryNumber:
		return nil, fmt.Errorf("handshake used %d protected records, at most %d are allowed", x.SequenceNumber, maxLibraryNumber)
	case len(x.RemoteConnectionID) > maxPeerCID:
		return nil, fmt.Errorf("peer's connection ID has %d bytes", len(x.RemoteConnectionID))
	}
	id, err := h.prove(p, x)
	if err != nil {
		return nil, err
	}
	a := &Association{
		w: h.w, identity: id, isClient: h.client, suite: suite, since: time.Now(), done: make(chan struct{}),
		random: x.RemoteRandom,
	}
	client, server := x.RemoteRandom[:], x.LocalRandom[:]
	if h.client {
		client, server = server, client
	}
	k, err := prf.GenerateEncryptionKeys(x.MasterSecret, client, server, 0, p.key, p.iv, p.hash)
	if err != nil {
		return nil, fmt.Errorf("key derivation: %w", err)
	}
	defer clearKeys(k)
	a.sealing, err = newProtector(p, k.ServerWriteKey, k.ServerWriteIV)
	if err != nil {
		return nil, err
	}
	a.opening, err = newProtector(p, k.ClientWriteKey, k.ClientWriteIV)
	if err != nil {
		return nil, err
	}
	if h.client {
		a.sealing, a.opening = a.opening, a.sealing
	}
	a.sealing.cid = bytes.Clone(x.RemoteConnectionID)
	if len(x.LocalConnectionID) > 0 {
		if h.cid == 0 || len(x.LocalConnectionID) != cidLen || binary.BigEndian.Uint64(x.LocalConnectionID) != h.cid {
			return nil, errors.New("handshake ended with a connection ID that is not ours")
		}
		a.localCID = h.cid
		a.opening.cid = bytes.Clone(x.LocalConnectionID)
	}
	a.number.Store(firstNumber)
	a.paths.current.Store(&path{h.from, h.w})
	a.limits = p.limits
	pick := func(to *uint64, configured uint64) {
		if configured != 0 {
			*to = min(*to, configured)
		}
	}
	pick(&a.limits.Records, e.cfg.Limits.Records)
	pick(&a.limits.Bytes, e.cfg.Limits.Bytes)
	pick(&a.limits.OpenFailures, e.cfg.Limits.OpenFailures)
	return a, nil
}

// clearKeys forgets key material; the ciphers have their own copies.
func clearKeys(k *prf.EncryptionKeys) {
	for _, b := range [][]byte{k.MasterSecret, k.ClientWriteKey, k.ServerWriteKey, k.ClientWriteIV, k.ServerWriteIV} {
		clear(b)
	}
}

// newProtector keys one direction.
func newProtector(p *suiteParams, key, iv []byte) (protector, error) {
	aead, err := p.aead(key)
	if err != nil {
		return protector{}, fmt.Errorf("%s: %w", p.name, err)
	}
	out := protector{kind: p.kind, aead: aead}
	copy(out.iv[:], iv)
	return out, nil
}

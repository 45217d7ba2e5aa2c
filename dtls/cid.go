package dtls

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// A Connection ID of ours, eight bytes in network order:
//
//	worker (1) | index into the table (3) | random (4)
//
// The first byte names the socket at whose worker the association was made, so
// that datagrams of a peer that has moved can be steered there. The random part
// keeps an old ID from matching the next user of its index.

// cidOwner is what a Connection ID leads to: a handshake, and once that is
// complete its association.
type cidOwner struct {
	cid uint64
	h   *handshake
	a   *Association
}

// cidTable maps our Connection IDs to their owners.
type cidTable struct {
	mu    sync.RWMutex
	slots []cidOwner
	free  []uint32
	// gen changes with every change of the table, so that a receive goroutine
	// may remember its last look-up.
	gen atomic.Uint64
}

// maxCIDs is what fits the index.
const maxCIDs = 1 << 24

// add draws a Connection ID for h; 0 means that the table is full.
func (t *cidTable) add(worker uint8, h *handshake) uint64 {
	var r [4]byte
	if _, err := rand.Read(r[:]); err != nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var i uint32
	switch n := len(t.free); {
	case n > 0:
		i, t.free = t.free[n-1], t.free[:n-1]
	case len(t.slots) < maxCIDs:
		if len(t.slots) == 0 {
			t.slots = append(t.slots, cidOwner{}) // index 0 stays unused: 0 means no ID
		}
		i = uint32(len(t.slots))
		t.slots = append(t.slots, cidOwner{})
	default:
		return 0
	}
	cid := uint64(worker)<<56 | uint64(i)<<32 | uint64(binary.BigEndian.Uint32(r[:]))
	t.slots[i] = cidOwner{cid: cid, h: h}
	t.gen.Add(1)
	return cid
}

// get finds the owner of a Connection ID.
func (t *cidTable) get(cid uint64) (cidOwner, bool) {
	i := cid >> 32 & (maxCIDs - 1)
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i == 0 || i >= uint64(len(t.slots)) || t.slots[i].cid != cid {
		return cidOwner{}, false
	}
	return t.slots[i], true
}

// establish hands a Connection ID from its handshake to a.
func (t *cidTable) establish(cid uint64, a *Association) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slots[cid>>32&(maxCIDs-1)] = cidOwner{cid: cid, a: a}
	t.gen.Add(1)
}

// remove frees a Connection ID; 0 is ignored.
func (t *cidTable) remove(cid uint64) {
	if cid == 0 {
		return
	}
	i := uint32(cid >> 32 & (maxCIDs - 1))
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots[i].cid == cid {
		t.slots[i] = cidOwner{}
		t.free = append(t.free, i)
		t.gen.Add(1)
	}
}

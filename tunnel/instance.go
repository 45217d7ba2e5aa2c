package tunnel

import (
	"encoding/hex"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// maxInstances bounds the instances of one identity: how many runs of it
	// may be known at a time.
	maxInstances = 64
	// maxInstanceLinks bounds the associations of one instance that dialled
	// this side. One carries; others are old ones whose end the peer could not
	// tell, and those of a peer that knows this side by several names.
	maxInstanceLinks = 4
	// maxIdentityLinks bounds the associations of one identity that dialled
	// this side, those without a hello included.
	maxIdentityLinks = 2 * maxInstances
)

// InstanceID names one run of a gateway's program. It is drawn at random at
// start and told to peers in the hello; it is a secret between the two.
type InstanceID [16]byte

// String returns the first four bytes in hexadecimal: enough to tell
// instances apart in a log, and too little to pass for one.
func (id InstanceID) String() string { return hex.EncodeToString(id[:4]) }

// Identity is what a peer has proven.
type Identity struct {
	// Key tells identities apart; it names the kind of proof too, so that a
	// certificate and a pre-shared key of one name are different identities.
	Key string
	// Names are what rules match: the DNS names of the certificate, or the
	// name of the pre-shared key.
	Names []string
}

// Name returns the first name, for people.
func (id Identity) Name() string {
	if len(id.Names) == 0 {
		return id.Key
	}
	return id.Names[0]
}

// Has reports whether name is one of the identity's names.
func (id Identity) Has(name string) bool { return slices.Contains(id.Names, name) }

// account is what an identity has here, all its instances together; it is
// guarded by Node.mu.
type account struct {
	links     int // associations that it dialled
	instances int
	held      int // sessions that it opened and that have not ended
	opening   int // those of them that are not connected yet
}

// account returns the account of an identity, making one if there is none.
// Node.mu is held.
func (n *Node) account(key string) *account {
	a := n.accounts[key]
	if a == nil {
		a = new(account)
		n.accounts[key] = a
	}
	return a
}

// settle forgets the account of an identity that has nothing left. Node.mu is
// held.
func (n *Node) settle(key string) {
	if a := n.accounts[key]; a != nil && a.links == 0 && a.instances == 0 {
		delete(n.accounts, key)
	}
}

type instanceKey struct {
	identity string
	id       InstanceID
}

// instance is one run of one peer: the owner of its sessions.
type instance struct {
	key      instanceKey
	ref      PeerRef
	identity Identity
	account  *account
	// link is the association that carries the instance; nil while there is none.
	link atomic.Pointer[Link]
	// sessions counts all sessions, closing ones included.
	sessions atomic.Int32
	// bytesIn and bytesOut count plaintext over all associations.
	bytesIn, bytesOut atomic.Uint64
	// unknown bounds what it is told of sessions that are unknown here.
	unknown toldUnknown

	// Guarded by Node.mu.
	peer     *Peer     // when this side dialled it last, else nil
	links    []*Link   // its associations, oldest first
	detached time.Time // when the last one went away
	gone     bool      // it was removed, and takes no more sessions
}

// unlink takes l away, and gives its place to the newest of the others if it
// was the one that carries. Node.mu is held.
func (i *instance) unlink(l *Link) {
	i.links = slices.DeleteFunc(i.links, func(o *Link) bool { return o == l })
	if i.link.Load() != l {
		return
	}
	for _, next := range slices.Backward(i.links) {
		if !next.closing.Load() {
			next.retired.Store(0)
			i.link.Store(next)
			return
		}
	}
	i.link.Store(nil)
	i.detached = time.Now()
}

// remove removes instances and their sessions, and lists the sessions that
// still have an endpoint. Node.mu is held.
func (n *Node) remove(insts ...*instance) (ids []uint64) {
	sessions := false
	for _, inst := range insts {
		inst.gone = true
		delete(n.instances, inst.key)
		delete(n.refs, inst.ref)
		sessions = sessions || inst.sessions.Load() > 0
		inst.account.instances--
		n.settle(inst.key.identity)
	}
	if !sessions {
		return nil
	}
	for id, s := range n.sessions { // one pass for all of them
		if !s.inst.gone {
			continue
		}
		if s.alive() {
			ids = append(ids, id)
		}
		n.forget(s)
	}
	return ids
}

// bound is what bind found.
type bound struct {
	inst    *instance
	had     bool     // the instance is known from before
	ended   []uint64 // sessions that end because a dialled peer is another instance now
	evicted []uint64 // sessions of an instance that had to make room
	surplus *Link    // an association that is one too many
}

// bind enters l as the link of the instance.
func (n *Node) bind(l *Link, key instanceKey) (b bound, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return b, errStopped
	}
	select {
	case <-l.done:
		return b, errStopped
	default:
	}
	inst := n.instances[key]
	if b.had = inst != nil; !b.had {
		if b.evicted, err = n.makeRoom(key.identity); err != nil {
			return b, err
		}
		inst = &instance{key: key, identity: l.identity, account: n.account(key.identity)}
		inst.account.instances++
		n.instances[key] = inst
		n.newRef(inst)
	}
	b.inst = inst
	if l.peer != nil {
		b.ended = n.bindPeer(l, inst)
	} else if len(inst.links) >= maxInstanceLinks {
		b.surplus = inst.links[0]
	}
	inst.links = append(inst.links, l)
	inst.link.Store(l)
	l.inst.Store(inst)
	close(l.ready)
	close(n.changed)
	n.changed = make(chan struct{})
	return b, nil
}

// bindPeer notes that a dialled peer is inst now, and retires its links before
// l. Links that others dialled are theirs to end: were each side to end what
// the other dialled, two gateways that dial one another would never rest.
// Node.mu is held.
func (n *Node) bindPeer(l *Link, inst *instance) (ended []uint64) {
	p, now := l.peer, n.now()
	others := false // somebody else's links lead to the instance before
	retire := func(links []*Link) {
		for _, o := range links {
			if o.peer == p {
				o.retired.Store(now)
			} else {
				others = true
			}
		}
	}
	retire(inst.links)
	inst.peer = p
	before := p.inst.Swap(inst)
	if before == nil || before == inst || before.gone {
		return nil
	}
	others = false
	retire(before.links)
	if !others {
		return n.remove(before)
	}
	if before.peer == p {
		before.peer = nil
	}
	return nil
}

// makeRoom removes the instance of an identity that has been away longest, if
// there are as many as may be. Node.mu is held.
func (n *Node) makeRoom(identity string) (ended []uint64, err error) {
	if a := n.accounts[identity]; a == nil || a.instances < maxInstances {
		return nil, nil
	}
	var oldest *instance
	for _, inst := range n.instances {
		if inst.key.identity == identity && len(inst.links) == 0 && (oldest == nil || inst.detached.Before(oldest.detached)) {
			oldest = inst
		}
	}
	if oldest == nil {
		return nil, errInstances
	}
	return n.remove(oldest), nil
}

package tunnel

import (
	"encoding/hex"
	"sync/atomic"
	"time"
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
func (id Identity) Has(name string) bool {
	for _, n := range id.Names {
		if n == name {
			return true
		}
	}
	return false
}

type instanceKey struct {
	identity string
	id       InstanceID
}

// instance is one run of one peer: the owner of its sessions.
type instance struct {
	key      instanceKey
	identity Identity
	peer     *Peer // when this side dialled it, else nil
	// link is the association that carries the instance; nil while there is none.
	link atomic.Pointer[Link]
	// opening counts sessions that the instance is opening here.
	opening atomic.Int32
	// sessions counts all sessions, closing ones included.
	sessions atomic.Int32
	// detached is when the last link went away; guarded by Node.mu.
	detached time.Time
}

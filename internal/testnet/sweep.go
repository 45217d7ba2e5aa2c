package testnet

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// namePrefix marks namespaces that this package made: tnet-RUN-PLACE.
	namePrefix = "tnet-"
	// lockFolder holds one file a run, locked while the run lives.
	lockFolder = "/run/tougw-testnet"
)

// run is the name of one Net and the lock that says that it lives.
type run struct {
	id   string
	lock *os.File
}

// newRun draws a name and locks it. What dead runs left is removed first.
func newRun() (*run, error) {
	if err := os.MkdirAll(lockFolder, 0o700); err != nil {
		return nil, fmt.Errorf("testnet: %w", err)
	}
	sweep()
	var raw [3]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, err
	}
	id := hex.EncodeToString(raw[:])
	lock, err := lockRun(id)
	if err != nil {
		return nil, fmt.Errorf("testnet: run %s: %w", id, err)
	}
	return &run{id: id, lock: lock}, nil
}

// name of the namespace at a place of the topology.
func (r *run) name(place string) string { return namePrefix + r.id + "-" + place }

// end gives the name up.
func (r *run) end() error {
	return errors.Join(os.Remove(r.lock.Name()), r.lock.Close())
}

// lockRun takes the lock of a run, or fails because the run lives.
func lockRun(id string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(lockFolder, id), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes namespaces, and kills programs in them, of runs whose process
// is gone.
func sweep() {
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		return
	}
	dead := map[string]*os.File{}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), namePrefix)
		id, _, named := strings.Cut(rest, "-")
		if !ours || !named {
			continue
		}
		if dead[id] == nil {
			lock, err := lockRun(id)
			if err != nil {
				continue
			}
			dead[id] = lock
		}
		killAll(e.Name())
		_ = netns.DeleteNamed(e.Name())
	}
	for _, lock := range dead {
		_ = os.Remove(lock.Name())
		_ = lock.Close()
	}
}

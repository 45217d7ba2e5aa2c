package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/tougw/tougw/internal/packet"
)

// device is the Device of all backends.
type device struct {
	name    string
	cfg     Config // complete
	mtu     int
	caps    Capabilities
	opened  *opened
	readers []*reader
	writers []*writer

	mu   sync.RWMutex // guards host against Close
	host *host

	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// Open makes the device that cfg describes and sets up the host for it; it
// needs CAP_NET_ADMIN. First it removes what a killed run of the same name left
// behind. When it fails, the host is as it was before. The error wraps
// unix.EBUSY when a live process has a device of this name in this network
// namespace, unix.EEXIST when the name belongs to a device that is not ours,
// and a *LoopError when our own packets would loop.
//
// All of it belongs to the network namespace of the calling thread, and stays
// there whatever threads use the device.
func Open(cfg Config) (Device, error) {
	c, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	s, err := newHost(c)
	if err != nil {
		return nil, err
	}
	d := &device{name: c.Name, cfg: c, host: s, mtu: c.MTU}
	o, err := s.start(c, d.chooseMTU)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	d.opened, d.caps = o, o.caps
	for i, f := range o.files {
		raw, err := f.SyscallConn()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("tun: queue %d: %w", i, err), s.close(s.release(), o.close()))
		}
		d.readers = append(d.readers, newReader(raw, d.caps.VnetHdr))
		d.writers = append(d.writers, newWriter(raw, d.caps.VnetHdr))
	}
	c.Logger.Info("device is up", "backend", d.caps.Backend, "queues", d.caps.Queues, "mtu", d.mtu, "fallback", d.caps.Fallback)
	return d, nil
}

// chooseMTU fills in an MTU of zero, now that the backend is known.
func (d *device) chooseMTU(c Capabilities) int {
	if d.mtu == 0 {
		d.mtu = defaultMTU
		if !c.TSO4 {
			d.mtu = defaultMTUPlain
		}
	}
	return d.mtu
}

func (d *device) Name() string               { return d.name }
func (d *device) MTU() int                   { return d.mtu }
func (d *device) Queues() int                { return len(d.readers) }
func (d *device) Capabilities() Capabilities { return d.caps }

func (d *device) Read(q int, ps []packet.In) (int, error) {
	n, err := d.readers[q].read(ps)
	return n, d.ioError(err)
}

func (d *device) Write(q int, ps []packet.Out) (int, error) {
	n, err := d.writers[q].write(ps)
	return n, d.ioError(err)
}

func (d *device) CheckLoop(endpoints []netip.Addr) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed.Load() {
		return os.ErrClosed
	}
	return d.host.checkLoop(d.cfg, endpoints)
}

func (d *device) Stats() Stats {
	var s Stats
	for _, r := range d.readers {
		s.ReadPackets += r.packets.Load()
		s.ReadBytes += r.bytes.Load()
		s.ReadMalformed += r.malformed.Load()
	}
	for _, w := range d.writers {
		s.WrittenPackets += w.packets.Load()
		s.WrittenBytes += w.bytes.Load()
		s.WriteSegmentation += w.segmentation.Load()
		s.WriteInvalid += w.invalid.Load()
		s.WriteRefused += w.refused.Load()
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.closed.Load() {
		s.ReadOverflow = d.host.overflow()
	}
	return s
}

func (d *device) Close() error {
	d.closeOnce.Do(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.closed.Store(true)
		// Rules first, so that what was captured takes its other way while the
		// device is still there.
		released := d.host.release()
		d.closeErr = d.host.close(released, d.opened.close())
	})
	return d.closeErr
}

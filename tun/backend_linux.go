package tun

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// opened is what a backend hands over: non-blocking files, one for each queue,
// known to the runtime's poller.
type opened struct {
	files []*os.File
	caps  Capabilities
}

func (o *opened) close() error {
	var errs []error
	for _, f := range o.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// backend makes the device of c, of which the caller knows that the name is
// free.
type backend func(h *netlink.Handle, c Config) (*opened, error)

// openBackend opens the device by the backend that c asks for. The makers are
// arguments so that a kernel without vnet headers can be put in their place.
func openBackend(h *netlink.Handle, c Config, viaNetlink, viaWater backend) (*opened, error) {
	switch c.Backend {
	case BackendNetlink:
		return viaNetlink(h, c)
	case BackendWater:
		return viaWater(h, c)
	}
	o, err := viaNetlink(h, c)
	if err == nil {
		return o, nil
	}
	o, err2 := viaWater(h, c)
	if err2 != nil {
		return nil, errors.Join(err, err2)
	}
	o.caps.Fallback = strings.TrimPrefix(err.Error(), "tun: ")
	return o, nil
}

// openNetlink is the backend with vnet header and several queues.
func openNetlink(h *netlink.Handle, c Config) (_ *opened, err error) {
	if err := probeFeatures(); err != nil {
		return nil, err
	}
	t := &netlink.Tuntap{
		LinkAttrs: netlink.NewLinkAttrs(),
		Mode:      netlink.TUNTAP_MODE_TUN,
		// Excl: should the name have been taken meanwhile, fail instead of
		// becoming one more queue of somebody else's device.
		Flags:      netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_MULTI_QUEUE | netlink.TUNTAP_TUN_EXCL,
		NonPersist: true,
		Queues:     1,
		Owner:      uint32(os.Geteuid()),
		Group:      uint32(os.Getegid()),
	}
	t.Name = c.Name
	if err := h.LinkAdd(t); err != nil {
		return nil, fmt.Errorf("tun: netlink backend: %w", err)
	}
	o := &opened{files: t.Fds}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if c.Queues > 1 {
		t.Flags &^= netlink.TUNTAP_TUN_EXCL
		t.Queues = c.Queues - 1
		if err := h.LinkAdd(t); err != nil {
			return nil, fmt.Errorf("tun: netlink backend: queue 2 to %d: %w", c.Queues, err)
		}
		o.files = append(o.files, t.Fds...)
	}
	const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if err := control(o.files[0], func(fd int) error {
		return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
	}); err != nil {
		return nil, fmt.Errorf("tun: netlink backend: kernel refuses checksum and TCP segmentation offload: %w", err)
	}
	o.caps = Capabilities{
		Backend: BackendNetlink, VnetHdr: true, TSO4: true, TSO6: true, Csum: true, Queues: len(o.files),
	}
	return o, nil
}

// probeFeatures asks the TUN driver, before any device is made, for what the
// netlink backend is about.
func probeFeatures() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("tun: netlink backend: /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	have, err := unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
	if err != nil {
		return fmt.Errorf("tun: netlink backend: features of the TUN driver: %w", err)
	}
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.IFF_VNET_HDR, "IFF_VNET_HDR"}, {unix.IFF_MULTI_QUEUE, "IFF_MULTI_QUEUE"}} {
		if have&f.bit == 0 {
			return fmt.Errorf("tun: netlink backend: the TUN driver has no %s", f.name)
		}
	}
	return nil
}

// openWater is the portable backend: one queue of complete packets.
func openWater(_ *netlink.Handle, c Config) (*opened, error) {
	w, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: c.Name},
	})
	if err != nil {
		return nil, fmt.Errorf("tun: water backend: %w", err)
	}
	f, ok := w.ReadWriteCloser.(*os.File)
	if !ok {
		return nil, errors.Join(fmt.Errorf("tun: water backend: device is a %T, not a file", w.ReadWriteCloser), w.Close())
	}
	// water opens without O_CLOEXEC; a child that inherits the descriptor would
	// keep the device alive after us.
	if err := control(f, func(fd int) error {
		unix.CloseOnExec(fd)
		return nil
	}); err != nil {
		return nil, errors.Join(fmt.Errorf("tun: water backend: %w", err), f.Close())
	}
	return &opened{files: []*os.File{f}, caps: Capabilities{Backend: BackendWater, Queues: 1}}, nil
}

// control calls f with the descriptor of file, without taking it out of the
// poller as File.Fd would.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

package tun

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// slotPatience is how long an Open waits for others of this host that are
// choosing their rule priorities, which takes them milliseconds.
const slotPatience = 10 * time.Second

// addressPatience is how long an Open waits for the kernel to take up the
// device's addresses, which takes it milliseconds.
const addressPatience = 3 * time.Second

// host owns what is changed outside of the device itself, and the journal of
// it. It is set up and closed by one goroutine. All of it belongs to the
// network namespace in which it was made, whatever thread later closes it.
type host struct {
	h       *netlink.Handle
	log     *slog.Logger
	ledger  *ledger
	journal journal

	index   int // of the device
	undo    []func() error
	sysctls []*os.File // of journal.Sysctls
}

// newHost takes the device's name for this process and cleans up what a killed
// run of that name left. c is complete.
func newHost(c Config) (_ *host, err error) {
	var token [8]byte
	rand.Read(token[:])
	s := &host{log: c.Logger, journal: journal{
		Version: journalVersion, Boot: bootID(),
		Device: c.Name, Alias: "tougw " + c.Name + " " + hex.EncodeToString(token[:]),
	}}
	if s.h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("tun: netlink: %w", err)
	}
	if s.ledger, err = openLedger(c.RunDir, c.Name); err != nil {
		s.h.Close()
		return nil, err
	}
	if err = s.recover(); err == nil {
		err = s.checkFree(c.Name)
	}
	if err != nil {
		return nil, s.close(err)
	}
	return s, nil
}

// recover undoes what the journal of an earlier run lists.
func (s *host) recover() error {
	j, err := s.ledger.read()
	if err != nil || j == nil {
		return err
	}
	if j.Boot == s.journal.Boot {
		var errs []error
		for i := len(j.Rules) - 1; i >= 0; i-- {
			errs = append(errs, s.delRule(j.Rules[i]))
		}
		for _, r := range j.Routes {
			errs = append(errs, s.delRoute(r))
		}
		for _, y := range j.Sysctls {
			f, err := os.OpenFile(procNet+y.Path, os.O_RDWR, 0)
			if err == nil {
				err = errors.Join(y.restore(f), f.Close())
			}
			errs = append(errs, err)
		}
		errs = append(errs, s.delDevice(j))
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("tun: cleaning up after an earlier run: %w", err)
		}
		s.log.Warn("cleaned up after a run that was killed", "rules", len(j.Rules), "routes", len(j.Routes), "sysctls", len(j.Sysctls))
	}
	return s.ledger.remove()
}

// delDevice removes a device that outlived the run of j. Only the alias proves
// that it is the one.
func (s *host) delDevice(j *journal) error {
	link, err := s.h.LinkByName(j.Device)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tun: device %s: %w", j.Device, err)
	}
	if j.Alias == "" || link.Attrs().Alias != j.Alias {
		return nil
	}
	if err := s.h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("tun: remove device %s: %w", j.Device, err)
	}
	return nil
}

// checkFree makes sure that no device has the name; an error wraps unix.EEXIST.
func (s *host) checkFree(name string) error {
	link, err := s.h.LinkByName(name)
	switch {
	case err == nil:
		return fmt.Errorf("tun: a device %q (%s) is there already and not ours: %w", name, link.Type(), unix.EEXIST)
	case errors.As(err, new(netlink.LinkNotFoundError)):
		return nil
	}
	return fmt.Errorf("tun: device %s: %w", name, err)
}

// start opens the device and sets up the host for it. After an error, close
// takes back what was done.
func (s *host) start(c Config, mtu func(Capabilities) int) (_ *opened, err error) {
	lock, err := lockFile(filepath.Join(c.RunDir, "slots.lock"), slotPatience)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := unlockFile(lock); err != nil {
			s.log.Warn("lock file stays", "err", err)
		}
	}()

	routes, err := s.families(c)
	if err != nil {
		return nil, err
	}
	if len(routes) > 0 {
		present, err := s.rules()
		if err != nil {
			return nil, err
		}
		slot, err := freeSlot(present)
		if err != nil {
			return nil, err
		}
		s.journal.Rules, s.journal.Routes = planRoutes(routes, slot, c.Mark)
	}
	if err := s.ledger.write(&s.journal); err != nil {
		return nil, err
	}
	o, err := openBackend(s.h, c, openNetlink, openWater)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil { // its routes go with it
			err = errors.Join(err, o.close())
		}
	}()
	if err := s.setUp(c, mtu(o.caps)); err != nil {
		return nil, err
	}
	if err := s.addRoutes(); err != nil {
		return nil, err
	}
	if err := s.checkLoop(c, c.Endpoints); err != nil {
		return nil, err
	}
	if err := s.loosen(c, routes); err != nil {
		return nil, err
	}
	return o, nil
}

// setUp sets the device's properties and addresses and brings it up.
func (s *host) setUp(c Config, mtu int) error {
	link, err := s.h.LinkByName(c.Name)
	if err != nil {
		return fmt.Errorf("tun: device %s: %w", c.Name, err)
	}
	s.index = link.Attrs().Index
	if err := s.h.LinkSetAlias(link, s.journal.Alias); err != nil {
		return fmt.Errorf("tun: set alias of %s: %w", c.Name, err)
	}
	if err := s.h.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("tun: set MTU of %s to %d: %w", c.Name, mtu, err)
	}
	s.tune(c)
	for _, p := range c.Addresses {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // nobody is there to answer
		} else {
			a.Broadcast = net.IPv4zero // none on a point-to-point device
		}
		if err := s.h.AddrAdd(link, a); err != nil {
			return fmt.Errorf("tun: add address %v to %s: %w", p, c.Name, err)
		}
	}
	if err := s.h.LinkSetUp(link); err != nil {
		return fmt.Errorf("tun: bring up %s: %w", c.Name, err)
	}
	return s.awaitAddresses(c)
}

// awaitAddresses waits until the kernel takes packets for the device's
// addresses. For IPv6 a worker of the kernel sees to that some time after the
// request was answered, duplicate address detection or not.
func (s *host) awaitAddresses(c Config) error {
	deadline := time.Now().Add(addressPatience)
	for _, p := range c.Addresses {
		for {
			r, err := s.lookup(p.Addr(), 0, false)
			if err != nil {
				return err
			}
			if r != nil && r.Type == unix.RTN_LOCAL {
				break
			}
			if time.Now().After(deadline) {
				s.log.Warn("the kernel does not take packets for an address yet", "address", p.Addr())
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// tune sets what the device can do without: failures, as under a read-only
// /proc/sys, are logged.
func (s *host) tune(c Config) {
	settings := []struct{ path, value string }{
		// What arrives from the device may have any source, also one that the
		// host would reach elsewhere.
		{"ipv4/conf/" + c.Name + "/rp_filter", "2"},
	}
	if hasIPv6() {
		settings = append(settings, []struct{ path, value string }{
			{"ipv6/conf/" + c.Name + "/disable_ipv6", "0"},
			// No link-local address, hence no router solicitations: there is no
			// link behind the device (IN6_ADDR_GEN_MODE_NONE).
			{"ipv6/conf/" + c.Name + "/addr_gen_mode", "1"},
		}...)
	}
	for _, y := range settings {
		if err := writeSysctl(y.path, y.value); err != nil {
			s.log.Debug("sysctl left as it is", "sysctl", y.path, "err", err)
		}
	}
}

// addRoutes puts the planned routes into their tables and then, in the order
// that matters, the rules that lead there.
func (s *host) addRoutes() error {
	for _, r := range s.journal.Routes {
		nr := netlinkRoute(r)
		nr.LinkIndex = s.index
		s.undo = append(s.undo, func() error { return s.delRoute(r) })
		if err := s.h.RouteAdd(nr); err != nil {
			return fmt.Errorf("tun: add route %v to table %d: %w", r.Dst, r.Table, err)
		}
	}
	for _, r := range s.journal.Rules {
		s.undo = append(s.undo, func() error { return s.delRule(r) })
		if err := s.h.RuleAdd(netlinkRule(r)); err != nil {
			return fmt.Errorf("tun: add rule %d for table %d: %w", r.Priority, r.Table, err)
		}
	}
	return nil
}

// loosen sets reverse path filtering to loose where the strict one would drop
// the answers of peers; see the package comment.
func (s *host) loosen(c Config, routes []netip.Prefix) error {
	captured, err := s.capturesPeers(c, routes)
	if err != nil || !captured {
		return err
	}
	strict, err := strictInterface(c.Name)
	if err != nil || strict == "" {
		return err
	}
	old, err := readSysctl(rpFilterAll)
	if err != nil {
		return fmt.Errorf("tun: sysctl %s: %w", rpFilterAll, err)
	}
	f, err := os.OpenFile(procNet+rpFilterAll, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("tun: %s drops the answers of peers, for its rp_filter is 1 and the routes capture the peers' addresses; "+
			"set net.ipv4.conf.%s.rp_filter to 2: %w", strict, strict, err)
	}
	y := sysctl{Path: rpFilterAll, Old: old, New: fmt.Sprint(rpLoose)}
	s.sysctls = append(s.sysctls, f)
	s.journal.Sysctls = append(s.journal.Sysctls, y)
	if err := s.ledger.write(&s.journal); err != nil {
		return err
	}
	s.undo = append(s.undo, func() error { return y.restore(f) })
	if err := writeAt(f, y.New); err != nil {
		return fmt.Errorf("tun: sysctl %s: %w", y.Path, err)
	}
	s.log.Warn("reverse path filtering set from strict to loose while this runs", "interface", strict)
	return nil
}

// capturesPeers reports whether unmarked packets to IPv4 peers enter the
// device: to those of c, or to any that may dial in. IPv6 has no rp_filter.
func (s *host) capturesPeers(c Config, routes []netip.Prefix) (bool, error) {
	for _, p := range routes {
		if p.Addr().Is4() && p.Bits() == 0 {
			return true, nil
		}
	}
	for _, a := range c.Endpoints {
		if !a.Unmap().Is4() {
			continue
		}
		r, err := s.lookup(a, 0, false)
		if err != nil {
			return false, err
		}
		if r != nil && r.LinkIndex == s.index {
			return true, nil
		}
	}
	return false, nil
}

// overflow gives the packets that the kernel dropped because a queue was full.
func (s *host) overflow() uint64 {
	link, err := s.h.LinkByIndex(s.index)
	if err != nil || link.Attrs().Statistics == nil {
		return 0
	}
	return link.Attrs().Statistics.TxDropped
}

// release takes back, last first, what start did outside of the device.
func (s *host) release() error {
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, s.undo[i]())
	}
	s.undo = nil
	return errors.Join(errs...)
}

// close takes back what is left, ends the journal and gives up the name. The
// journal stays when something could not be undone, here or before, where
// the caller got the errors that it passes; they are part of the result.
func (s *host) close(before ...error) error {
	err := errors.Join(append(before, s.release())...)
	if err == nil {
		err = s.ledger.remove()
	}
	for _, f := range s.sysctls {
		f.Close() // each write was checked
	}
	err = errors.Join(err, s.ledger.close())
	s.h.Close()
	return err
}

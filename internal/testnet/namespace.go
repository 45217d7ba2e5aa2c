package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netns"
)

// Namespace is a network namespace. Its methods are safe for concurrent use.
type Namespace struct {
	// Name is what `ip netns` calls it.
	Name string

	handle netns.NsHandle
	calls  chan func() // run on the keeper's thread
	kept   chan struct{}
}

// newNamespace makes a namespace and a thread that lives in it until close.
// Programs are started from that thread, because the kernel ties a child's
// parent-death signal to the thread, not to the process.
func newNamespace(name string) (*Namespace, error) {
	ns := &Namespace{Name: name, calls: make(chan func()), kept: make(chan struct{})}
	made := make(chan error)
	go func() {
		defer close(ns.kept)
		// Never unlocked: the thread ends with this goroutine.
		runtime.LockOSThread()
		handle, err := netns.NewNamed(name)
		ns.handle = handle
		made <- err
		if err != nil {
			return
		}
		for f := range ns.calls {
			f()
		}
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("testnet: namespace %s: %w", name, err)
	}
	if err := ns.prepare(); err != nil {
		return nil, errors.Join(err, ns.close())
	}
	return ns, nil
}

// prepare brings the loopback up and sets what makes runs alike on every host.
func (ns *Namespace) prepare() error {
	for key, value := range map[string]string{
		"net.ipv4.ip_forward":                "1",
		"net.ipv6.conf.all.forwarding":       "1",
		"net.ipv4.conf.all.rp_filter":        "0",
		"net.ipv4.conf.default.rp_filter":    "0",
		"net.ipv6.conf.default.accept_dad":   "0",
		"net.ipv4.icmp_ratelimit":            "0",
		"net.ipv6.icmp.ratelimit":            "0",
		"net.ipv4.conf.all.accept_redirects": "0",
		"net.ipv4.conf.all.send_redirects":   "0",
	} {
		if err := ns.Sysctl(key, value); err != nil {
			return err
		}
	}
	return ns.linkUp("lo")
}

// close kills what still runs in the namespace and removes it.
func (ns *Namespace) close() error {
	killAll(ns.Name)
	close(ns.calls)
	<-ns.kept
	return errors.Join(ns.handle.Close(), netns.DeleteNamed(ns.Name))
}

// keep runs f on the keeper's thread, which must not be held for long.
func (ns *Namespace) keep(f func()) {
	done := make(chan struct{})
	ns.calls <- func() { defer close(done); f() }
	<-done
}

// Do runs f on a thread inside the namespace and returns its error. Sockets
// that f opens stay in the namespace whoever uses them later; goroutines that
// f starts are outside.
func (ns *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		// Never unlocked: a thread in a foreign namespace is not given back.
		runtime.LockOSThread()
		if err := netns.Set(ns.handle); err != nil {
			done <- fmt.Errorf("testnet: enter %s: %w", ns.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Dial connects from inside the namespace. address holds a literal address, not
// a name: names are resolved on threads outside.
func (ns *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return ns.DialWith(ctx, &net.Dialer{}, network, address)
}

// DialWith is Dial with the caller's dialer, which it borrows.
func (ns *Namespace) DialWith(ctx context.Context, d *net.Dialer, network, address string) (conn net.Conn, err error) {
	err = ns.Do(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen announces on a literal address inside the namespace.
func (ns *Namespace) Listen(network, address string) (l net.Listener, err error) {
	err = ns.Do(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket announces a packet socket on a literal address inside the
// namespace.
func (ns *Namespace) ListenPacket(network, address string) (conn net.PacketConn, err error) {
	err = ns.Do(func() error {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}

// Sysctl sets a variable of the namespace, for example net.ipv4.ip_forward. No
// part of the key may hold a dot itself.
func (ns *Namespace) Sysctl(key, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	return ns.Do(func() error {
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("testnet: %s: %w", ns.Name, err)
		}
		return nil
	})
}

// WaitListening waits until a TCP socket of the namespace listens on port,
// whoever owns it. It does not connect, since that would be the connection
// which a server waits for.
func (ns *Namespace) WaitListening(ctx context.Context, port uint16) error {
	return Poll(ctx, func() error {
		for _, table := range []string{"tcp", "tcp6"} {
			var text []byte
			err := ns.Do(func() (err error) {
				text, err = os.ReadFile("/proc/thread-self/net/" + table)
				return err
			})
			if err == nil && listens(string(text), port) {
				return nil
			}
		}
		return fmt.Errorf("nothing listens on port %d of %s", port, ns.Name)
	})
}

// listens looks for a listening socket in the text of /proc/net/tcp.
func listens(table string, port uint16) bool {
	const stateListen = "0A"
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != stateListen {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(n) == port {
			return true
		}
	}
	return false
}

// Poll calls check every few milliseconds until it returns nil or ctx ends;
// then the error is check's last one.
func Poll(ctx context.Context, check func() error) error {
	const first, longest = 2 * time.Millisecond, 100 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for wait := first; ; wait = min(2*wait, longest) {
		err := check()
		if err == nil {
			return nil
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		case <-timer.C:
		}
	}
}

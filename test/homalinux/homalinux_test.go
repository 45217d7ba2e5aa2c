//go:build linux

// Package homalinux tests the user-space Homa against the kernel's: a Linux host that
// runs the Homa module and this folder's program peer. README.md says how to
// prepare it.
package homalinux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/homa/wire"
)

const (
	servedPort   = 4000 // on both sides; see also linuxHost.server
	unservedPort = 4999
	// tries of a case that ends with a time-out: an emulated host may stand still
	// for longer than the 100 ms that are a peer's patience.
	tries = 3
)

// sizes of messages: the ends of one and two packets of both families, of the
// unscheduled bytes, and of the protocol.
var sizes = []int{1, 100, 1404, 1405, 1424, 1425, 10_000, 40_000, 40_001, 100_000, 1_000_000}

// versions that HOMA_LINUX_VERSION may name.
var versions = map[string]wire.Version{"": wire.Main, "main": wire.Main, "6.10": wire.Linux610, "stripped": wire.Stripped, "6.1": wire.Linux61}

// linuxHost is the host that the environment names.
type linuxHost struct {
	addresses []netip.Addr
	command   []string // runs peer there, empty if it cannot
	version   wire.Version
}

func host(t *testing.T) linuxHost {
	t.Helper()
	list := os.Getenv("HOMA_LINUX_HOST")
	if list == "" {
		t.Skip("HOMA_LINUX_HOST does not name the addresses of a Linux host with the Homa module (see README.md)")
	}
	var h linuxHost
	for text := range strings.SplitSeq(list, ",") {
		address, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatalf("HOMA_LINUX_HOST: %v", err)
		}
		h.addresses = append(h.addresses, address)
	}
	version, ok := versions[os.Getenv("HOMA_LINUX_VERSION")]
	if !ok {
		t.Fatalf("HOMA_LINUX_VERSION %q is none of main, 6.10, stripped, 6.1", os.Getenv("HOMA_LINUX_VERSION"))
	}
	h.version = version
	h.command = strings.Fields(os.Getenv("HOMA_LINUX_PEER"))
	return h
}

// node starts an endpoint of ours that speaks the host's version.
func (h linuxHost) node(t *testing.T) *rpc.Node {
	t.Helper()
	var carrier rawip.Config
	var config rpc.Config
	config.Engine.Peer = homa.PeerConfig{Version: h.version, VersionSet: true}
	if h.version == wire.Linux61 {
		carrier.Protocol = rawip.Protocol61
	}
	conn, err := rawip.Open(carrier)
	if err != nil {
		t.Fatal(err)
	}
	n, err := rpc.NewNode(conn, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// server is where peer serves. On the branch linux_6.1.38 it needs a port for
// each family.
func (h linuxHost) server(address netip.Addr) netip.AddrPort {
	if h.version == wire.Linux61 && address.Is4() {
		return netip.AddrPortFrom(address, servedPort+1)
	}
	return netip.AddrPortFrom(address, servedPort)
}

func message(size, seed int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i ^ i>>8*31 ^ i>>16*17 ^ seed)
	}
	return b
}

// again calls f until it succeeds or fails with something else than a time-out.
func again(t *testing.T, what string, f func() error) {
	t.Helper()
	for try := 1; ; try++ {
		err := f()
		if err == nil {
			return
		}
		if try == tries || !errors.Is(err, rpc.ErrTimeout) {
			t.Errorf("%s: %v", what, err)
			return
		}
		t.Logf("%s: try %d: %v", what, try, err)
	}
}

func echo(ctx context.Context, n *rpc.Node, to netip.AddrPort, request []byte) error {
	response, err := n.Call(ctx, to, request)
	if err == nil && !bytes.Equal(response, request) {
		err = fmt.Errorf("the response, of %d bytes, is not the request", len(response))
	}
	return err
}

// TestCall calls the kernel's server.
func TestCall(t *testing.T) {
	h := host(t)
	n := h.node(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, address := range h.addresses {
		to := h.server(address)
		for _, size := range sizes {
			again(t, fmt.Sprintf("%d bytes to %v", size, to), func() error { return echo(ctx, n, to, message(size, 0)) })
		}
		const outstanding, each = 20, 20
		var group sync.WaitGroup
		for worker := range outstanding {
			group.Go(func() {
				for range each {
					again(t, fmt.Sprintf("one of %d calls to %v", outstanding, to), func() error { return echo(ctx, n, to, message(100, worker)) })
				}
			})
		}
		group.Wait()
		if h.version == wire.Linux61 && address.Is6() {
			continue // that version sends its ICMPv6 errors late, if at all
		}
		err := echo(ctx, n, netip.AddrPortFrom(address, unservedPort), message(100, 0))
		if !errors.Is(err, rpc.ErrRefused) && !errors.Is(err, rpc.ErrTimeout) { // Linux limits the rate of its ICMP errors
			t.Errorf("port %d of %v, which nobody serves: %v", unservedPort, address, err)
		}
	}
}

// TestServe lets the kernel's client call ours.
func TestServe(t *testing.T) {
	h := host(t)
	if len(h.command) == 0 {
		t.Skip("HOMA_LINUX_PEER does not name the command that runs peer on the Linux host (see README.md)")
	}
	n := h.node(t)
	server, err := n.Listen(servedPort, rpc.HandlerFunc(func(_ context.Context, request *rpc.Request, w *rpc.ResponseWriter) error {
		_, err := io.Copy(w, request)
		return err
	}), rpc.ServeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, address := range h.addresses {
		self := localAddress(t, address)
		for _, size := range sizes {
			again(t, fmt.Sprintf("%d bytes to %v", size, self), func() error {
				return h.call(t.Context(), netip.AddrPortFrom(self, servedPort), size, 2, 1)
			})
		}
		again(t, "calls at a time to "+self.String(), func() error {
			return h.call(t.Context(), netip.AddrPortFrom(self, servedPort), 100, 400, 20)
		})
		err := h.call(t.Context(), netip.AddrPortFrom(self, unservedPort), 100, 1, 1)
		if err == nil || !strings.Contains(err.Error(), "transport endpoint is not connected") {
			t.Errorf("port %d, which nobody serves: %v, want ENOTCONN", unservedPort, err)
		}
	}
}

// call runs peer on the Linux host. Its time-outs become rpc.ErrTimeout.
func (h linuxHost) call(ctx context.Context, to netip.AddrPort, size, count, outstanding int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	arguments := append(h.command[1:len(h.command):len(h.command)], "-size", fmt.Sprint(size), "-count", fmt.Sprint(count),
		"-outstanding", fmt.Sprint(outstanding), "call", to.String())
	output, err := exec.CommandContext(ctx, h.command[0], arguments...).CombinedOutput()
	switch {
	case err == nil:
		return nil
	case bytes.Contains(output, []byte("connection timed out")):
		return fmt.Errorf("%w: %s", rpc.ErrTimeout, output)
	}
	return fmt.Errorf("%w: %s", err, output)
}

// localAddress is this host's address for packets to peer.
func localAddress(t *testing.T, peer netip.Addr) netip.Addr {
	t.Helper()
	c, err := net.Dial("udp", netip.AddrPortFrom(peer, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

const (
	wireguardModule = "golang.zx2c4.com/wireguard"
	wireguardPort   = 51820
	// wireguardMTU leaves room for 20 bytes of IPv4, 8 of UDP and 32 of
	// WireGuard in outerMTU.
	wireguardMTU = outerMTU - 60
)

// wireguard is WireGuard in user space, the nearest relative: it carries
// packets where tougw carries streams.
func wireguard() *contender {
	return &contender{
		name: "wireguard-go", about: fmt.Sprintf("ChaCha20-Poly1305, inner MTU %d", wireguardMTU),
		install: func(ctx context.Context, t *tools) (string, error) {
			// Always the newest; without a network an earlier build does.
			folder, err := t.goInstall(ctx, "wireguard-go", wireguardModule+"@latest")
			if _, have := t.have("wireguard-go", "wireguard"); err != nil && !have {
				return "", err
			}
			return t.moduleVersion(ctx, filepath.Join(folder, "wireguard"))
		},
		start: startWireguard,
	}
}

// wireguardEnd is one of the two ends.
type wireguardEnd struct {
	ns      *testnet.Namespace
	link    string
	private *ecdh.PrivateKey
	// allowed are the networks behind it.
	allowed []netip.Prefix
	// address on the Internet.
	address netip.Addr
	process *testnet.Process
}

func startWireguard(ctx context.Context, l *lab.Lab, t *tools) (e ends, details string, err error) {
	// The control sockets of all wireguard-go on a machine share a folder, so
	// links are named after the network.
	id := strings.Split(l.Server.Name, "-")[1]
	both := [2]*wireguardEnd{
		{ns: l.Sites[0].Gateway, link: "wgc" + id, allowed: []netip.Prefix{testnet.AppPrefix, testnet.AppPrefix6}, address: l.Sites[0].Addr},
		{ns: l.Gateway, link: "wgg" + id, allowed: []netip.Prefix{testnet.ServerPrefix, testnet.ServerPrefix6}, address: testnet.GatewayAddr},
	}
	for _, end := range both {
		if end.private, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return e, "", err
		}
	}
	e.cleanUp = func() error { return errors.Join(both[0].removeSocket(), both[1].removeSocket()) }
	for i, end := range both {
		if err := end.start(ctx, l, filepath.Join(t.cache, "wireguard-go", "wireguard"), both[1-i]); err != nil {
			return e, "", err
		}
	}
	e.client, e.gateway = both[0].process, both[1].process
	return e, "", nil
}

func (e *wireguardEnd) socket() string { return "/var/run/wireguard/" + e.link + ".sock" }

// removeSocket removes the control socket, which the program leaves.
func (e *wireguardEnd) removeSocket() error {
	if err := os.Remove(e.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// start starts the program and routes to the other end.
func (e *wireguardEnd) start(ctx context.Context, l *lab.Lab, program string, other *wireguardEnd) (err error) {
	if e.process, err = l.Go(e.ns, e.link, program, "-f", e.link); err != nil {
		return err
	}
	if err := testnet.Poll(ctx, func() error {
		select {
		case <-e.process.Done():
			return fmt.Errorf("wireguard-go ended: %w", e.process.Wait())
		default:
			return e.configure(other)
		}
	}); err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("ip link set %s mtu %d up", e.link, wireguardMTU)}
	for _, prefix := range other.allowed {
		lines = append(lines, fmt.Sprintf("ip route add %s dev %s", prefix, e.link))
	}
	return commands(ctx, e.ns, lines...)
}

// configure gives an end its key and its peer, in the language of WireGuard's
// cross-platform user-space configuration.
func (e *wireguardEnd) configure(peer *wireguardEnd) error {
	conn, err := net.Dial("unix", e.socket())
	if err != nil {
		return err
	}
	defer conn.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "set=1\nprivate_key=%s\nlisten_port=%d\n", hex.EncodeToString(e.private.Bytes()), wireguardPort)
	fmt.Fprintf(&b, "public_key=%s\nendpoint=%s\n", hex.EncodeToString(peer.private.PublicKey().Bytes()), netip.AddrPortFrom(peer.address, wireguardPort))
	for _, prefix := range peer.allowed {
		fmt.Fprintf(&b, "allowed_ip=%s\n", prefix)
	}
	if _, err := conn.Write([]byte(b.String() + "\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && strings.TrimSpace(line) != "errno=0" {
		err = fmt.Errorf("wireguard-go: %s", strings.TrimSpace(line))
	}
	return err
}

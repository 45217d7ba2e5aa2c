package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

const (
	wireguardModule = "golang.zx2c4.com/wireguard"
	wireguardPort   = 51820
)

// wireguardGo is WireGuard in user space, the nearest relative: it carries
// packets where tougw carries streams.
func wireguardGo(ctx context.Context, binary string) (*contender, error) {
	program, version, err := installWireguard(ctx)
	if err != nil {
		return nil, err
	}
	l, err := lab.New(binary, testnet.Options{})
	if err != nil {
		return nil, err
	}
	c := &contender{Lab: l, name: "wireguard-go", version: version}
	if err := c.startWireguard(ctx, program); err != nil {
		return nil, errors.Join(err, l.Close(), l.RemoveDir())
	}
	return c, nil
}

// installWireguard builds the newest release into the user's cache. Without a
// network an earlier build does.
func installWireguard(ctx context.Context) (program, version string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	cache = filepath.Join(cache, "tougw-bench")
	program = filepath.Join(cache, "wireguard")
	install := exec.CommandContext(ctx, "go", "install", wireguardModule+"@latest")
	install.Env = append(os.Environ(), "GOBIN="+cache, "CGO_ENABLED=0")
	// Outside of this module, whose go.mod has no say in it.
	install.Dir = os.TempDir()
	if out, err := install.CombinedOutput(); err != nil {
		if _, statErr := os.Stat(program); statErr != nil {
			return "", "", fmt.Errorf("go install %s: %w: %s", wireguardModule, err, out)
		}
	}
	out, err := exec.CommandContext(ctx, "go", "version", "-m", program).Output()
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) >= 3 && f[0] == "mod" {
			version = f[2]
		}
	}
	return program, version + ", ChaCha20-Poly1305, MTU 1420", nil
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
}

func (c *contender) startWireguard(ctx context.Context, program string) error {
	// The control sockets of all wireguard-go on a machine share a folder, so
	// links are named after the run.
	id := strings.Split(c.Server.Name, "-")[1]
	ends := []*wireguardEnd{
		{ns: c.Sites[0].Gateway, link: "wgc" + id, allowed: []netip.Prefix{testnet.AppPrefix, testnet.AppPrefix6}, address: c.Sites[0].Addr},
		{ns: c.Gateway, link: "wgg" + id, allowed: []netip.Prefix{testnet.ServerPrefix, testnet.ServerPrefix6}, address: testnet.GatewayAddr},
	}
	for _, e := range ends {
		var err error
		if e.private, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
	}
	for i, e := range ends {
		p, err := c.Go(e.ns, e.link, program, "-f", e.link)
		if err != nil {
			return err
		}
		if i == 0 {
			c.client = p.Cmd.Process.Pid
		} else {
			c.gateway = p.Cmd.Process.Pid
		}
		if err := testnet.Poll(ctx, func() error {
			select {
			case <-p.Done():
				return fmt.Errorf("wireguard-go ended: %w", p.Wait())
			default:
				return e.configure(ends[1-i])
			}
		}); err != nil {
			return err
		}
		commands := []string{"ip link set " + e.link + " up"}
		for _, prefix := range ends[1-i].allowed {
			commands = append(commands, fmt.Sprintf("ip route add %s dev %s", prefix, e.link))
		}
		for _, command := range commands {
			args := strings.Fields(command)
			if _, err := e.ns.Run(ctx, args[0], args[1:]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// configure gives an end its key and its peer, in the language of WireGuard's
// cross-platform user-space configuration.
func (e *wireguardEnd) configure(peer *wireguardEnd) error {
	conn, err := net.Dial("unix", "/var/run/wireguard/"+e.link+".sock")
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

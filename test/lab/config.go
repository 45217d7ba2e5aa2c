package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/tougw/tougw/internal/testnet"
)

// Port is where gateways of a lab listen.
const Port = 443

// Config is a configuration file in the making. String gives its YAML.
type Config struct {
	// Name of the instance, and of its identity's files.
	Name string
	// Identity is the value of the key `identity`; empty for NAME's certificate.
	Identity string
	// Listen, Rules and Accept are the elements of the lists of these names, as
	// YAML.
	Listen, Rules, Accept []string
	// TUN, where traffic is captured.
	TUN *TUN
	// Peers that are dialled.
	Peers []Peer
	// More holds further top-level keys with their values, a line each.
	More []string
}

// TUN is the device of a Config.
type TUN struct {
	// Name of the device.
	Name string
	// Addresses and Routes as the file has them.
	Addresses, Routes []string
	// More is appended to the map, for example "backend: water".
	More string
}

// Peer is a gateway that a Config dials.
type Peer struct {
	// Name is what rules call it.
	Name string
	// Endpoint is its address and UDP port.
	Endpoint netip.AddrPort
	// ServerName is what its certificate must prove; empty for Name.
	ServerName string
	// More is appended to the map, for example "path_mtu: 1280".
	More string
}

// String returns the YAML of the file.
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\n", c.Name)
	fmt.Fprintf(&b, "admin: {socket: %s.sock, http: \"127.0.0.1:9180\"}\n", c.Name)
	identity := c.Identity
	if identity == "" {
		identity = fmt.Sprintf("{cert: %[1]s.crt, key: %[1]s.key, ca: ca.crt}", c.Name)
	}
	fmt.Fprintf(&b, "identity: %s\n", identity)
	if len(c.Listen) > 0 {
		fmt.Fprintf(&b, "listen: [%s]\n", quoted(c.Listen))
	}
	if t := c.TUN; t != nil {
		fmt.Fprintf(&b, "tun: {name: %s, addresses: [%s], routes: [%s]%s}\n", t.Name, quoted(t.Addresses), quoted(t.Routes), more(t.More))
	}
	if len(c.Peers) > 0 {
		b.WriteString("peers:\n")
	}
	for _, p := range c.Peers {
		name := p.ServerName
		if name == "" {
			name = p.Name
		}
		fmt.Fprintf(&b, "  - {name: %s, endpoints: [\"%s\"], server_name: %s%s}\n", p.Name, p.Endpoint, name, more(p.More))
	}
	list(&b, "rules", c.Rules)
	list(&b, "accept", c.Accept)
	for _, line := range c.More {
		b.WriteString(line + "\n")
	}
	return b.String()
}

func quoted(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return `"` + strings.Join(list, `", "`) + `"`
}

func more(text string) string {
	if text == "" {
		return ""
	}
	return ", " + text
}

func list(b *strings.Builder, key string, elements []string) {
	if len(elements) > 0 {
		fmt.Fprintf(b, "%s:\n", key)
	}
	for _, e := range elements {
		fmt.Fprintf(b, "  - %s\n", e)
	}
}

// ClientConfig is a client that takes everything for the server's networks to
// the gateway of testnet, which it dials over IPv4.
func ClientConfig(name string) Config {
	return Config{
		Name: name,
		TUN: &TUN{
			Name:      "tou0",
			Addresses: []string{"10.77.0.1/32", "fd77::1/128"},
			Routes:    []string{testnet.ServerPrefix.String(), testnet.ServerPrefix6.String()},
		},
		Peers: []Peer{{Name: "gateway", Endpoint: netip.AddrPortFrom(testnet.GatewayAddr, Port)}},
		Rules: []string{"{action: tunnel, peer: gateway}"},
	}
}

// GatewayConfig is a gateway that lets clients whose names start with "client"
// reach the server's networks.
func GatewayConfig() Config {
	return Config{
		Name:   "gateway",
		Listen: []string{fmt.Sprintf("[::]:%d", Port)},
		Accept: []string{fmt.Sprintf("{peer: \"client*\", dst: [%q, %q], action: tcp}", testnet.ServerPrefix, testnet.ServerPrefix6)},
	}
}

package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

const (
	nebulaModule  = "github.com/slackhq/nebula"
	nebulaVersion = "v1.11.1"
	nebulaPort    = 4242
	// nebulaMTU leaves room for 20 bytes of IPv4, 8 of UDP, 16 of Nebula's
	// header and 16 of its tag in outerMTU.
	nebulaMTU = outerMTU - 60
)

// Addresses in Nebula's own network.
var (
	nebulaClient  = netip.MustParseAddr("10.88.0.1")
	nebulaGateway = netip.MustParseAddr("10.88.0.2")
)

// nebulaRelease is the release that installs with our Go.
func nebulaRelease() *contender {
	folder := "nebula-" + nebulaVersion
	return nebula("Nebula 1.11", "no offloads in this release", folder, func(ctx context.Context, t *tools) (string, error) {
		if _, have := t.have(folder, "nebula", "nebula-cert"); have {
			return nebulaVersion, nil
		}
		_, err := t.goInstall(ctx, folder, nebulaModule+"/cmd/nebula@"+nebulaVersion, nebulaModule+"/cmd/nebula-cert@"+nebulaVersion)
		return nebulaVersion, err
	})
}

// nebulaGiven is another build of Nebula, with offloads, whose programs are in
// a folder that the user names.
func nebulaGiven(folder string) *contender {
	return nebula("Nebula new", "offloads of device and socket on", folder, func(ctx context.Context, t *tools) (string, error) {
		out, err := t.output(ctx, filepath.Join(folder, "nebula"), "-version")
		return strings.TrimSpace(out), err
	})
}

func nebula(name, about, folder string, install func(context.Context, *tools) (string, error)) *contender {
	return &contender{
		name: name, install: install,
		about: fmt.Sprintf("AES-256-GCM, inner MTU %d, %d routines, static hosts; %s", nebulaMTU, runtime.NumCPU(), about),
		start: func(ctx context.Context, l *lab.Lab, t *tools) (ends, string, error) {
			if !filepath.IsAbs(folder) {
				folder = filepath.Join(t.cache, folder)
			}
			return startNebula(ctx, l, folder)
		},
	}
}

// nebulaEnd is one of the two ends.
type nebulaEnd struct {
	name    string
	ns      *testnet.Namespace
	inner   netip.Addr
	outer   netip.Addr
	network netip.Prefix // behind it
}

func startNebula(ctx context.Context, l *lab.Lab, programs string) (e ends, details string, err error) {
	client := nebulaEnd{"client", l.Sites[0].Gateway, nebulaClient, l.Sites[0].Addr, testnet.AppPrefix}
	gateway := nebulaEnd{"gateway", l.Gateway, nebulaGateway, testnet.GatewayAddr, testnet.ServerPrefix}
	cert := filepath.Join(programs, "nebula-cert")
	if err := command(ctx, l, cert, "ca", "-name", "bench", "-out-crt", "ca.crt", "-out-key", "ca.key"); err != nil {
		return e, "", err
	}
	start := func(own, other nebulaEnd) (*testnet.Process, error) {
		err := command(ctx, l, cert, "sign", "-name", own.name, "-networks", netip.PrefixFrom(own.inner, 24).String(),
			"-unsafe-networks", own.network.String(), "-ca-crt", "ca.crt", "-ca-key", "ca.key",
			"-out-crt", own.name+".crt", "-out-key", own.name+".key")
		if err != nil {
			return nil, err
		}
		file, err := l.WriteFile(own.name+".yml", nebulaConfig(own, other))
		if err != nil {
			return nil, err
		}
		return l.Go(own.ns, own.name, filepath.Join(programs, "nebula"), "-config", file)
	}
	if e.gateway, err = start(gateway, client); err != nil {
		return e, "", err
	}
	e.client, err = start(client, gateway)
	return e, "", err
}

// nebulaConfig is the file of one end: as the example of the project, with as
// many routines as there are processors, large socket buffers, and everything
// allowed. A release that does not know a key ignores it.
func nebulaConfig(own, other nebulaEnd) string {
	return fmt.Sprintf(`
pki: {ca: ca.crt, cert: %[1]s.crt, key: %[1]s.key}
static_host_map: {"%[2]s": ["%[3]s:%[4]d"]}
lighthouse: {am_lighthouse: false, interval: 60}
listen:
  host: 0.0.0.0
  port: %[4]d
  read_buffer: 10485760
  write_buffer: 10485760
  udp_offloads: true
routines: %[5]d
punchy: {punch: false}
cipher: aes
tun:
  dev: nebula1
  mtu: %[6]d
  tx_queue: 5000
  use_offloads: true
  unsafe_routes: [{route: "%[7]s", via: "%[2]s", mtu: %[6]d}]
logging: {level: warn, format: text}
firewall:
  default_local_cidr_any: true
  conntrack: {tcp_timeout: 12m, udp_timeout: 3m, default_timeout: 10m}
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`, own.name, other.inner, other.outer, nebulaPort, runtime.NumCPU(), nebulaMTU, other.network)
}

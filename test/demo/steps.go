package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
	"github.com/tougw/tougw/test/wire"
)

const (
	fileSize     = 100_000_000 // bytes
	iperfSeconds = 4
	// canary is what nobody on the Internet may read.
	canary = "tougw demo: this sentence must not be readable on the Internet"
)

const picture = `
One flow of an application, from left to right:

  app ──────── client gateway ─────── Internet ─────── gateway ──────── server
  10.1.0.2      192.0.2.2    └─ DTLS over UDP ─┘    203.0.113.7    198.51.100.2
         └ TCP ┘                                              └─ TCP ─┘
`

// show runs all steps.
func show(ctx context.Context, l *lab.Lab) error {
	fmt.Print(picture)
	d := &demo{Lab: l, out: newAccount()}
	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"five namespaces, joined by virtual cables", d.namespaces},
		{"a certificate authority and two identities", d.keys},
		{"two configuration files", d.files},
		{"listen in on the Internet, then start both gateways", d.start},
		{"curl: 100 MB from nginx", d.curl},
		{"what the Internet saw", d.wire},
		{"iperf3 from the application to the server", d.iperfUp},
		{"iperf3 from the server to the application", d.iperfDown},
		{"what the client's daemon says", d.ask},
	} {
		d.out.title(step.title)
		if err := step.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// demo is what the steps hand on.
type demo struct {
	*lab.Lab
	out             *account
	client, gateway *lab.Daemon
	capture         *testnet.Capture
	sum             string // of the file, SHA-256
	flows           string // seen while iperf3 ran
}

func (d *demo) app() *testnet.Namespace { return d.Sites[0].App }

func (d *demo) namespaces(ctx context.Context) error {
	for _, place := range []struct {
		ns   *testnet.Namespace
		what string
	}{
		{d.Sites[0].App, "the application: a host that knows nothing of all this"},
		{d.Sites[0].Gateway, "client gateway: tougw with a TUN device"},
		{d.Internet, "the Internet: routes between the two gateways, and no further"},
		{d.Gateway, "gateway: tougw that listens on UDP port 443"},
		{d.Server, "server: nginx and iperf3"},
	} {
		d.out.line("%-22s %s", place.ns.Name, place.what)
	}
	// From here on the Internet counts what it forwards.
	return d.Internet.Nft(fmt.Sprintf(`
table inet demo {
	chain forward {
		type filter hook forward priority 10
		udp sport %[1]d counter accept comment "tunnel"
		udp dport %[1]d counter accept comment "tunnel"
		counter comment "other"
	}
}`, lab.Port))
}

func (d *demo) keys(ctx context.Context) error {
	if err := d.Keygen(ctx, "client", "gateway"); err != nil {
		return err
	}
	for _, line := range []string{
		"tougw keygen ca --out .",
		"tougw keygen identity client --ca . --out .",
		"tougw keygen identity gateway --ca . --out .",
	} {
		d.out.line("$ %s", line)
	}
	return nil
}

func (d *demo) configs() (client, gateway lab.Config) {
	client = lab.ClientConfig("client")
	// No other address family, to keep the files short.
	client.TUN.Addresses = client.TUN.Addresses[:1]
	client.TUN.Routes = client.TUN.Routes[:1]
	gateway = lab.GatewayConfig()
	gateway.Accept = []string{fmt.Sprintf("{peer: client, dst: [%q], action: tcp}", testnet.ServerPrefix)}
	return client, gateway
}

func (d *demo) files(ctx context.Context) error {
	client, gateway := d.configs()
	for _, c := range []lab.Config{client, gateway} {
		file, err := d.WriteFile(c.Name+".yaml", c.String())
		if err != nil {
			return err
		}
		d.out.line("%s.yaml", c.Name)
		d.out.block(c.String())
		if _, err := d.Tougw(ctx, "check", "-c", file); err != nil {
			return err
		}
	}
	d.out.line("tougw check: both are right")
	return nil
}

func (d *demo) start(ctx context.Context) (err error) {
	d.capture, err = d.Internet.Capture(ctx, testnet.CaptureOptions{Link: "gw0", File: d.Path("internet.pcap")})
	if err != nil {
		return err
	}
	client, gateway := d.configs()
	if d.gateway, err = d.Start(ctx, d.Gateway, gateway); err != nil {
		return err
	}
	start := time.Now()
	if d.client, err = d.Start(ctx, d.Sites[0].Gateway, client); err != nil {
		return err
	}
	if err := d.client.WaitPeer(ctx, "gateway", "up"); err != nil {
		return err
	}
	took := time.Since(start)
	status, err := d.client.Status(ctx)
	if err != nil {
		return err
	}
	peer := status.Peers[0]
	d.out.line("client up %d ms after its start: it proved to be %q, the gateway proved to be %q", took.Milliseconds(), "client", strings.TrimPrefix(peer.Identity, "cert:"))
	d.out.line("cipher suite %s, path MTU %d bytes", peer.Suite, peer.PathMTU)
	return nil
}

func (d *demo) curl(ctx context.Context) error {
	if err := d.Nginx(ctx); err != nil {
		return err
	}
	if _, err := d.WriteFile("www/secret.txt", canary); err != nil {
		return err
	}
	var err error
	if d.sum, err = randomFile(d.Path("www/file")); err != nil {
		return err
	}
	base := "http://" + testnet.ServerAddr.String()
	secret, err := d.app().Run(ctx, "curl", "-sS", "--fail", "--max-time", "20", base+"/secret.txt")
	if err != nil {
		return err
	}
	if secret != canary {
		return fmt.Errorf("curl got %q, not %q", secret, canary)
	}
	got := d.Path("file")
	done := d.out.progress(func() string { return size(got, fileSize) })
	seconds, err := d.app().Run(ctx, "curl", "-sS", "--fail", "--max-time", "120", "-o", got, "-w", "%{time_total}", base+"/file")
	done()
	if err != nil {
		return err
	}
	sum, n, err := hashFile(got)
	if err != nil {
		return err
	}
	if sum != d.sum || n != fileSize {
		return fmt.Errorf("curl got %d bytes with SHA-256 %s, not %d with %s", n, sum, fileSize, d.sum)
	}
	took, err := time.ParseDuration(seconds + "s")
	if err != nil {
		return err
	}
	d.out.line("%d bytes in %.2f s: %.2f Gbit/s (with a packet capture beside it)", n, took.Seconds(), float64(n)*8/took.Seconds()/1e9)
	d.out.line("SHA-256 as sent and as received: %s", sum)
	return nil
}

func (d *demo) wire(ctx context.Context) error {
	packets, missed, err := d.capture.Stop()
	if err != nil {
		return err
	}
	report, err := wire.CheckFile(d.Path("internet.pcap"), lab.Port, []byte(canary))
	if err != nil {
		return err
	}
	if err := report.Err(); err != nil {
		return err
	}
	d.out.line("%d packets captured, %d of them ARP and neighbour discovery", packets, report.Neighbour)
	d.out.line("the other %d are UDP, port %d, and hold %d DTLS 1.2 records and nothing else:", report.Datagrams, lab.Port, report.TotalRecords())
	for _, kind := range slices.Sorted(maps.Keys(report.Records)) {
		d.out.line("  %9d  %s", report.Records[kind], wire.TypeName(kind))
	}
	if missed > 0 {
		d.out.line("(tcpdump was too slow for %d more; the Internet's own counters see every packet)", missed)
	}
	d.out.line("the sentence that curl read before was sought in every packet: not there")
	return nil
}

func (d *demo) iperfUp(ctx context.Context) error {
	if err := d.IperfServer(ctx, d.Server); err != nil {
		return err
	}
	return d.iperf(ctx, false)
}

func (d *demo) iperfDown(ctx context.Context) error { return d.iperf(ctx, true) }

func (d *demo) iperf(ctx context.Context, down bool) error {
	start := time.Now()
	done := d.out.progress(func() string {
		return fmt.Sprintf("%.0f of %d s", min(time.Since(start).Seconds(), iperfSeconds), iperfSeconds)
	})
	defer done()
	seen := make(chan error, 1)
	if !down {
		// A flow that is alive is more telling than a list of none.
		go func() { seen <- d.seeFlows(ctx) }()
	}
	r, err := lab.Iperf(ctx, d.app(), lab.IperfOptions{To: testnet.ServerAddr, Seconds: iperfSeconds, Down: down})
	if err != nil {
		return err
	}
	done()
	if !down {
		if err := <-seen; err != nil {
			return err
		}
	}
	d.out.line("%.2f Gbit/s in one TCP stream (%d MB)", r.Gbps(), r.Bytes/1e6)
	return nil
}

// seeFlows waits until the flow that carries the data has moved some.
func (d *demo) seeFlows(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, iperfSeconds*time.Second)
	defer cancel()
	return testnet.Poll(ctx, func() error {
		flows, err := d.client.Flows(ctx)
		if err != nil {
			return err
		}
		for _, f := range flows {
			if f.BytesUp > fileSize {
				d.flows, err = d.Tougw(ctx, "flows", "--socket", d.client.Socket())
				return err
			}
		}
		return fmt.Errorf("no flow has moved %d bytes", fileSize)
	})
}

func (d *demo) ask(ctx context.Context) error {
	status, err := d.Tougw(ctx, "status", "--socket", d.client.Socket())
	if err != nil {
		return err
	}
	d.out.line("$ tougw status")
	d.out.block(status)
	d.out.line("$ tougw flows                (as it was while iperf3 sent)")
	d.out.block(d.flows)
	return d.counters(ctx)
}

var counted = regexp.MustCompile(`counter packets (\d+) bytes (\d+) (?:accept )?comment "(\w+)"`)

// counters compares what the Internet forwarded: the tunnel and nothing else.
func (d *demo) counters(ctx context.Context) error {
	rules, err := d.Internet.Run(ctx, "nft", "list", "table", "inet", "demo")
	if err != nil {
		return err
	}
	packets, bytes := map[string]int{}, map[string]int{}
	for _, m := range counted.FindAllStringSubmatch(rules, -1) {
		var p, b int
		if _, err := fmt.Sscan(m[1]+" "+m[2], &p, &b); err != nil {
			return err
		}
		packets[m[3]] += p
		bytes[m[3]] += b
	}
	if packets["tunnel"] == 0 || packets["other"] != 0 {
		return fmt.Errorf("the Internet forwarded %d packets of the tunnel and %d others:\n%s", packets["tunnel"], packets["other"], rules)
	}
	d.out.line("In all, the Internet forwarded %d MB of UDP port %d, and not one packet of anything else.", bytes["tunnel"]/1e6, lab.Port)
	return nil
}

// randomFile writes fileSize bytes that do not compress and returns their
// SHA-256.
func randomFile(name string) (sum string, err error) {
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	var seed [32]byte
	if _, err := io.CopyN(io.MultiWriter(f, hash), rand.NewChaCha8(seed), fileSize); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), f.Close()
}

func hashFile(name string) (sum string, n int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	hash := sha256.New()
	n, err = io.Copy(hash, f)
	return hex.EncodeToString(hash.Sum(nil)), n, err
}

// size says how much of a file is there.
func size(name string, whole int64) string {
	info, err := os.Stat(name)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d of %d MB", info.Size()/1e6, whole/1e6)
}

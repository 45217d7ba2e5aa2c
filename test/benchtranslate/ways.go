package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// Servers, all on the server's host. Those of transfers and of small requests are
// processes of their own, so that what is compared is the network.
const (
	redisPort = 6379
	bulkPort  = 6380
	webPort   = lab.HTTPPort
)

// doorAddr is the near gateway's address for the application's host.
var doorAddr = netip.MustParseAddr("10.1.0.1")

// way is how requests get from the application's host to the servers.
type way struct {
	name             string
	redis, bulk, web netip.AddrPort
}

// Names of ways.
const (
	direct     = "direct"
	oneProxy   = "one HAProxy"
	twoProxies = "two HAProxies"
	translator = "translator"
)

// services are the servers with the ports of the far gateway and, from there on,
// those of the near gateway.
var services = []struct {
	name    string
	port    uint16
	framing string
}{{"redis", redisPort, "resp"}, {"bulk", bulkPort, "resp"}, {"web", webPort, "http1"}}

// Ports of the gateways: the number of the service is added.
const (
	proxyPort  = 7100 // of HAProxy, at either gateway
	doorPort   = 7200 // of tougw at the near gateway
	fabricPort = 4000 // of Homa
)

// ways in the order of the table.
var ways = []*way{
	{direct, at(testnet.ServerAddr, redisPort), at(testnet.ServerAddr, bulkPort), at(testnet.ServerAddr, webPort)},
	{oneProxy, at(testnet.GatewayAddr, proxyPort), at(testnet.GatewayAddr, proxyPort+1), at(testnet.GatewayAddr, proxyPort+2)},
	{twoProxies, at(doorAddr, proxyPort), at(doorAddr, proxyPort+1), at(doorAddr, proxyPort+2)},
	{translator, at(doorAddr, doorPort), at(doorAddr, doorPort+1), at(doorAddr, doorPort+2)},
}

func at(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }

// world is the network with all servers and proxies.
//
//	application ── near gateway ── switch ── far gateway ── servers
type world struct {
	*lab.Lab
	near, far *lab.Daemon
}

// newWorld builds it, without the translator's programs.
func newWorld(ctx context.Context, o *options) (*world, error) {
	l, err := lab.New(o.tougw, testnet.Options{})
	if err != nil {
		return nil, err
	}
	w := &world{Lab: l}
	if err := w.begin(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) close() error { return errors.Join(w.Lab.Close(), w.RemoveDir()) }

// app is where clients run.
func (w *world) app() *testnet.Namespace { return w.Sites[0].App }

func (w *world) begin(ctx context.Context) error {
	if err := w.RoutePlain(); err != nil {
		return err
	}
	if err := w.Keygen(ctx, "near", "far"); err != nil {
		return err
	}
	if _, err := w.WriteFile("www/100", strings.Repeat("x", 99)+"\n"); err != nil {
		return err
	}
	if err := w.Nginx(ctx); err != nil {
		return err
	}
	for _, port := range []uint16{redisPort, bulkPort} {
		name := fmt.Sprintf("redis-%d", port)
		if err := w.serve(ctx, w.Server, name, port, "redis-server", "--port", fmt.Sprint(port), "--bind", "0.0.0.0",
			"--protected-mode", "no", "--save", "", "--appendonly", "no", "--dir", w.Dir, "--daemonize", "no"); err != nil {
			return err
		}
	}
	if err := w.proxy(ctx, w.Gateway, "haproxy-far", testnet.ServerAddr, func(i int) uint16 { return services[i].port }); err != nil {
		return err
	}
	return w.proxy(ctx, w.Sites[0].Gateway, "haproxy-near", testnet.GatewayAddr, func(i int) uint16 { return uint16(proxyPort + i) })
}

// serve starts a program and waits until it listens.
func (w *world) serve(ctx context.Context, ns *testnet.Namespace, name string, port uint16, program string, args ...string) error {
	p, err := w.Go(ns, name, program, args...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, fmt.Errorf("%s does not listen (see its log)", name))
	defer cancel()
	go func() {
		select {
		case <-p.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return ns.WaitListening(ctx, port)
}

// proxy starts a HAProxy of plain TCP for all services.
func (w *world) proxy(ctx context.Context, ns *testnet.Namespace, name string, to netip.Addr, port func(i int) uint16) error {
	var b strings.Builder
	b.WriteString("global\n\tmaxconn 4096\ndefaults\n\tmode tcp\n\ttimeout connect 5s\n\ttimeout client 60s\n\ttimeout server 60s\n")
	for i, s := range services {
		fmt.Fprintf(&b, "listen %s\n\tbind 0.0.0.0:%d\n\tserver s %v\n", s.name, proxyPort+i, at(to, port(i)))
	}
	file, err := w.WriteFile(name+".cfg", b.String())
	if err != nil {
		return err
	}
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program = "/usr/sbin/haproxy"
	}
	return w.serve(ctx, ns, name, proxyPort+uint16(len(services)-1), program, "-db", "-f", file)
}

// translate starts the translator at both gateways, in place of those that run;
// homa is the value of the key of this name.
func (w *world) translate(ctx context.Context, homa string) error {
	for _, d := range []*lab.Daemon{w.near, w.far} {
		if d != nil {
			if err := d.Stop(); err != nil {
				return err
			}
		}
	}
	near, far := "translate:\n", "translate:\n"
	for i, s := range services {
		near += fmt.Sprintf("  - {name: %s, from: {tcp: \"%v\"}, to: {homa: \"%v\"}, framing: {type: %s}}\n",
			s.name, at(doorAddr, uint16(doorPort+i)), at(testnet.GatewayAddr, uint16(fabricPort+i)), s.framing)
		far += fmt.Sprintf("  - {name: %s, from: {homa: \":%d\"}, to: {tcp: \"%v\"}, framing: {type: %s}}\n",
			s.name, fabricPort+i, at(testnet.ServerAddr, s.port), s.framing)
	}
	var err error
	if w.far, err = w.Start(ctx, w.Gateway, lab.Config{Name: "far", More: []string{far, "homa: " + homa}}); err != nil {
		return err
	}
	w.near, err = w.Start(ctx, w.Sites[0].Gateway, lab.Config{Name: "near", More: []string{near, "homa: " + homa}})
	return err
}

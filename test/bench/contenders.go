package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// ours is the contender that the others are compared with.
const ours = "tougw"

// outerMTU is the largest packet between the gateways, in bytes, for all.
const outerMTU = 1500

// contenders lists all, in the order of the table; ours is the last.
func contenders(nebula string) []*contender {
	all := []*contender{
		{name: "plain", about: "routing by the kernel: no tunnel, no encryption", kernel: true, start: startPlain},
		wireguard(),
		nebulaRelease(),
		ocserv(),
		{name: ours, about: "configuration of the demo, path_mtu 1500", install: tougwVersion, start: startTougw},
	}
	if nebula != "" {
		all = slices.Insert(all, 3, nebulaGiven(nebula))
	}
	return all
}

// chosen are the contenders whose names are in a comma-separated list, all with
// an empty one.
func chosen(all []*contender, list string) ([]*contender, error) {
	if list == "" {
		return all, nil
	}
	var names []string
	for _, c := range all {
		names = append(names, c.name)
	}
	var some []*contender
	for name := range strings.SplitSeq(list, ",") {
		i := slices.Index(names, strings.TrimSpace(name))
		if i < 0 {
			return nil, fmt.Errorf("no contender %q; there are %s", name, strings.Join(names, ", "))
		}
		some = append(some, all[i])
	}
	return some, nil
}

// startPlain teaches the Internet the way.
func startPlain(_ context.Context, l *lab.Lab, _ *tools) (ends, string, error) {
	return ends{}, "", l.RoutePlain()
}

func tougwVersion(ctx context.Context, t *tools) (string, error) {
	out, err := t.output(ctx, t.tougw, "version")
	if err != nil {
		return "", err
	}
	words := strings.Fields(firstLine(out))
	return words[len(words)-1], nil
}

func startTougw(ctx context.Context, l *lab.Lab, _ *tools) (e ends, details string, err error) {
	if err := l.Keygen(ctx, "client", "gateway"); err != nil {
		return e, "", err
	}
	gateway, err := l.Start(ctx, l.Gateway, lab.GatewayConfig())
	if err != nil {
		return e, "", err
	}
	e.gateway = gateway.Process
	config := lab.ClientConfig("client")
	config.Peers[0].More = fmt.Sprintf("path_mtu: %d", outerMTU)
	client, err := l.Start(ctx, l.Sites[0].Gateway, config)
	if err != nil {
		return e, "", err
	}
	e.client = client.Process
	e.sockets = []string{client.Socket(), gateway.Socket()}
	if err := client.WaitPeer(ctx, "gateway", "up"); err != nil {
		return e, "", err
	}
	status, err := client.Status(ctx)
	if err != nil {
		return e, "", err
	}
	details = status.Peers[0].Suite
	if mtu := status.Peers[0].PathMTU; mtu != outerMTU {
		details += fmt.Sprintf("; outer packets of %d bytes only", mtu)
	}
	return e, details, nil
}

// linkMTU reads the MTU of a link, for the record.
func linkMTU(ctx context.Context, ns *testnet.Namespace, link string) string {
	out, err := ns.Run(ctx, "ip", "-o", "link", "show", link)
	if err != nil {
		return "unknown MTU"
	}
	_, rest, _ := strings.Cut(out, " mtu ")
	mtu, _, _ := strings.Cut(rest, " ")
	return "inner MTU " + mtu
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/tougw/tougw/internal/testnet"
)

// lab is the part of a testnet that is used:
//
//	long ── switch ── receiver
//	short ────┘
//
// long (the client gateway) sends long messages, short (the Internet router)
// short ones; both cross the gateway, whose link to the server is the switch's
// port to the receiver. The gateway also is the neighbour that unsaturated rows
// call from.
type lab struct {
	net                     *testnet.Net
	long, short, port, host *testnet.Namespace
	addr                    netip.Addr // of host
	mu                      sync.Mutex // held while callers are made
}

// downlink is the link of lab.port to lab.host.
const downlink = "lan0"

func newLab() (*lab, error) {
	n, err := testnet.New(testnet.Options{AppOnGateway: true})
	if err != nil {
		return nil, err
	}
	l := &lab{net: n, long: n.Sites[0].Gateway, short: n.Internet, port: n.Gateway, host: n.Server, addr: testnet.ServerAddr}
	// The server's network must be known beyond its gateway; answers go to addresses
	// of the Internet, which everybody knows.
	if err := n.Internet.AddRoute(testnet.ServerPrefix, testnet.GatewayAddr); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return l, nil
}

func (l *lab) close() error { return l.net.Close() }

// links are the ends of veth pairs that the saturated row uses.
func (l *lab) links() map[*testnet.Namespace][]string {
	return map[*testnet.Namespace][]string{
		l.long: {"wan0"}, l.short: {"gw0", l.net.Sites[0].Link}, l.port: {"wan0", downlink}, l.host: {"eth0"},
	}
}

// segment turns segmentation offloads of all links on or off. Off, queues hold
// packets as a wire would carry them.
func (l *lab) segment(ctx context.Context, on bool) error {
	state := "off"
	if on {
		state = "on"
	}
	for ns, links := range l.links() {
		for _, link := range links {
			if _, err := ns.Run(ctx, "ethtool", "-K", link, "tso", state, "gso", state, "gro", state); err != nil {
				return err
			}
		}
	}
	return nil
}

// priorities is the number of queues of the port, the first of the highest
// priority: packets choose by the upper three bits of their TOS byte.
const priorities = 8

// shape puts the rate and the queues on the downlink; leaf is the queueing
// discipline of each.
func (l *lab) shape(ctx context.Context, rate int64, leaf string) error {
	if err := l.unshape(ctx); err != nil {
		return err
	}
	// Each class may borrow all of the rate, those of higher priority first; its own
	// share is as small as the shaper takes.
	share := max(rate/1000, 8*1000)
	var batch strings.Builder
	fmt.Fprintf(&batch, "qdisc add dev %s root handle 1: htb default 17 r2q 1\n", downlink)
	fmt.Fprintf(&batch, "class add dev %s parent 1: classid 1:1 htb rate %dbit burst 3000 cburst 3000\n", downlink, rate)
	for p := range priorities {
		class := 0x10 + p // priority 7 is class 10, priority 0 class 17
		fmt.Fprintf(&batch, "class add dev %s parent 1:1 classid 1:%x htb rate %dbit ceil %dbit prio %d quantum 1514 burst 3000 cburst 3000\n",
			downlink, class, share, rate, p)
		fmt.Fprintf(&batch, "qdisc add dev %s parent 1:%x %s\n", downlink, class, leaf)
		fmt.Fprintf(&batch, "filter add dev %s parent 1: protocol ip prio 1 u32 match ip tos %#x 0xe0 flowid 1:%x\n",
			downlink, (priorities-1-p)<<5, class)
	}
	_, err := l.port.RunInput(ctx, batch.String(), "tc", "-batch", "-")
	return err
}

// unshape removes what shape made.
func (l *lab) unshape(ctx context.Context) error {
	out, err := l.port.Run(ctx, "tc", "qdisc", "show", "dev", downlink)
	if err != nil || !strings.Contains(out, "htb") {
		return err
	}
	_, err = l.port.Run(ctx, "tc", "qdisc", "del", "dev", downlink, "root")
	return err
}

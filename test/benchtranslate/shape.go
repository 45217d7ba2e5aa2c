package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tougw/tougw/internal/testnet"
)

// port is the switch's link to the far gateway, which is the one that is shaped:
// requests cross it, answers do not.
const port = "gw0"

// priorities is the number of its queues, the first of the highest priority:
// packets choose by the upper three bits of their TOS byte, as Homa sets them and
// TCP does not.
const priorities = 8

// errNoQueue: the queueing discipline cannot be had.
var errNoQueue = errors.New("no such queueing discipline")

// fifo is a queue of so many bytes that drops what does not fit; codel is one that
// keeps flows apart and delays short, of the same memory.
func fifo(o *options) string  { return fmt.Sprintf("bfifo limit %d", o.queue) }
func codel(o *options) string { return fmt.Sprintf("fq_codel memory_limit %d", o.queue) }

// segment turns segmentation offloads on the way between the gateways on or off.
// Off, queues hold packets as a wire would carry them.
func (w *world) segment(ctx context.Context, on bool) error {
	state := "off"
	if on {
		state = "on"
	}
	site := w.Sites[0]
	for ns, links := range map[*testnet.Namespace][]string{
		site.App: {"eth0"}, site.Gateway: {"lan0", "wan0"}, w.Internet: {site.Link, port}, w.Gateway: {"wan0"},
	} {
		for _, link := range links {
			if _, err := ns.Run(ctx, "ethtool", "-K", link, "tso", state, "gso", state, "gro", state); err != nil {
				return err
			}
		}
	}
	return nil
}

// shape puts the rate and the queues on the port; leaf is the discipline of each.
func (w *world) shape(ctx context.Context, rate int64, leaf string) error {
	if err := w.unshape(ctx); err != nil {
		return err
	}
	// Each class may borrow all of the rate, those of higher priority first; its own
	// share is as small as the shaper takes.
	share := max(rate/1000, 8*1000)
	var batch strings.Builder
	fmt.Fprintf(&batch, "qdisc add dev %s root handle 1: htb default 17 r2q 1\n", port)
	fmt.Fprintf(&batch, "class add dev %s parent 1: classid 1:1 htb rate %dbit burst 3000 cburst 3000\n", port, rate)
	for p := range priorities {
		class := 0x10 + p // priority 7 is class 10, priority 0 class 17
		fmt.Fprintf(&batch, "class add dev %s parent 1:1 classid 1:%x htb rate %dbit ceil %dbit prio %d quantum 1514 burst 3000 cburst 3000\n",
			port, class, share, rate, p)
		fmt.Fprintf(&batch, "qdisc add dev %s parent 1:%x %s\n", port, class, leaf)
		fmt.Fprintf(&batch, "filter add dev %s parent 1: protocol ip prio 1 u32 match ip tos %#x 0xe0 flowid 1:%x\n",
			port, (priorities-1-p)<<5, class)
	}
	_, err := w.Internet.RunInput(ctx, batch.String(), "tc", "-batch", "-")
	return err
}

// unshape removes what shape made.
func (w *world) unshape(ctx context.Context) error {
	out, err := w.Internet.Run(ctx, "tc", "qdisc", "show", "dev", port)
	if err != nil || !strings.Contains(out, "htb") {
		return err
	}
	_, err = w.Internet.Run(ctx, "tc", "qdisc", "del", "dev", port, "root")
	return err
}

// tryShape is shape, with errNoQueue where it is the leaf that this kernel lacks.
func (w *world) tryShape(ctx context.Context, o *options, rate int64, leaf string) error {
	err := w.shape(ctx, rate, leaf)
	if err != nil && w.shape(ctx, rate, fifo(o)) == nil {
		err = fmt.Errorf("%w: %w", errNoQueue, err)
	}
	return err
}

package testnet

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// rulesTimeout bounds the programs that set rules up; they are done in a
// fraction of it.
const rulesTimeout = 10 * time.Second

// faultTable is the nftables table that holds the faults of a namespace.
const faultTable = "inet fault"

// Drop drops a random share of what the namespace forwards and matches filter,
// an nftables expression such as "udp length > 1300"; the empty filter matches
// every UDP datagram. share is a probability, rounded to a thousandth. It
// replaces the faults set before.
//
// A batch that segmentation offload carries through the namespace counts as one
// packet here. Where single datagrams must be lost use package relay, or switch
// the offload off with SetSegmentation.
func (ns *Namespace) Drop(share float64, filter string) error {
	if filter == "" {
		filter = "meta l4proto udp"
	}
	chance := ""
	if share < 1 {
		chance = fmt.Sprintf("numgen random mod 1000 < %d", int(share*1000+0.5))
	}
	return ns.faults(fmt.Sprintf(`
table %[1]s {
	chain forward {
		type filter hook forward priority filter
		%[2]s %[3]s counter drop
	}
}`, faultTable, filter, chance))
}

// BlockUDP drops every UDP datagram that the namespace forwards, silently.
func (ns *Namespace) BlockUDP() error { return ns.Drop(1, "") }

// Blackhole makes hosts of addresses that are there and never answer: what
// arrives for them is dropped in silence. The namespace must own the addresses.
func (ns *Namespace) Blackhole(addrs ...string) error {
	var rules strings.Builder
	for _, a := range addrs {
		family := "ip"
		if strings.Contains(a, ":") {
			family = "ip6"
		}
		fmt.Fprintf(&rules, "\t\t%s daddr %s counter drop\n", family, a)
	}
	return ns.faults(fmt.Sprintf(`
table %s {
	chain input {
		type filter hook input priority filter
		# The host itself is there: its link-layer address can be found.
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
%s	}
}`, faultTable, &rules))
}

// Heal removes the faults of the namespace.
func (ns *Namespace) Heal() error { return ns.faults("") }

// faults replaces the table of faults.
func (ns *Namespace) faults(table string) error {
	return ns.Nft("table " + faultTable + "\ndelete table " + faultTable + "\n" + table)
}

// Nft loads a ruleset, in the language of nft -f.
func (ns *Namespace) Nft(ruleset string) error {
	ctx, cancel := context.WithTimeout(context.Background(), rulesTimeout)
	defer cancel()
	_, err := ns.RunInput(ctx, ruleset, "nft", "-f", "-")
	return err
}

// SetSegmentation switches UDP segmentation offload of a link on or off. Off,
// the kernel cuts batches into datagrams before they reach the other end, as a
// network card without the offload would see them.
func (ns *Namespace) SetSegmentation(link string, on bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), rulesTimeout)
	defer cancel()
	state := "off"
	if on {
		state = "on"
	}
	_, err := ns.Run(ctx, "ethtool", "-K", link, "tx-udp-segmentation", state)
	return err
}

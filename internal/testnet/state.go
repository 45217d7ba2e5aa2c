package testnet

import (
	"context"
	"fmt"
	"regexp"
	"sort"
	"strings"
)

// State describes what programs can change in a namespace, as text that is
// equal when the state is: links, addresses, neighbours that were set by hand,
// routes of all tables, policy rules, the packet filter and a few switches. The
// order of lines does not matter, nor do counters and lifetimes.
func (ns *Namespace) State(ctx context.Context) (string, error) {
	var state strings.Builder
	for _, command := range []string{
		"ip -o link show", "ip -o addr show", "ip neigh show nud permanent",
		"ip -4 route show table all", "ip -6 route show table all",
		"ip -4 rule show", "ip -6 rule show", "nft list ruleset",
		"sysctl -a --pattern ^net[.]ipv[46][.](conf[.](all|default|lan0|wan0|eth0)[.]|ip_forward|tcp_)",
	} {
		args := strings.Fields(command)
		out, err := ns.Run(ctx, args[0], args[1:]...)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&state, "# %s\n%s", command, settled(out, args[0] != "nft"))
	}
	return state.String(), nil
}

// passing are parts of the output that change without anybody's doing.
var passing = regexp.MustCompile(`expires \S+|(valid|preferred)_lft \S+|packets \d+ bytes \d+|\b(if)?index \d+|(pref|proto) (medium|ra)`)

// settled drops what changes by itself, and what the kernel learned rather than
// was told, from the output of a command.
func settled(out string, unordered bool) string {
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, " cache") {
			continue
		}
		line = strings.Join(strings.Fields(passing.ReplaceAllString(line, "")), " ")
		lines = append(lines, line)
	}
	if unordered {
		sort.Strings(lines)
	}
	return strings.Join(lines, "\n") + "\n"
}

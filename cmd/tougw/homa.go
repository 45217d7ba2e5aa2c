package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rawip"
	"github.com/tougw/tougw/homa/rpc"
	"github.com/tougw/tougw/homa/wire"
)

// newHoma returns `tougw homa` with its subcommands.
func newHoma() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "homa",
		Short: "Call, serve and measure Homa from this host",
		Long: `homa speaks Homa on raw sockets (IP protocol 146), with hosts of the Linux Homa
module or with itself at the other end. It needs CAP_NET_RAW. A message is 1 to
1,000,000 bytes long.

The exit code is 0 when calls were answered, or requests served until the end;
1 when no call was answered or something failed; 2 for a wrong command line.`,
	}
	cmd.AddCommand(newHomaPing(), newHomaServe(), newHomaBench())
	asGroup(cmd)
	return cmd
}

// homaFlags are the flags that all subcommands of homa have.
type homaFlags struct {
	bind    []string
	device  string
	version string
}

func (f *homaFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.bind, "bind", nil, "use only these local `ADDRESSES`")
	cmd.Flags().StringVar(&f.device, "device", "", "use only the network device `NAME`")
	cmd.Flags().StringVar(&f.version, "speak", wire.Main.String(),
		"`VERSION` of the Linux module that peers run: main, 6.10, stripped, or 6.1 (IP protocol 253)")
}

// parse reads the flags.
func (f *homaFlags) parse(cmd *cobra.Command) (cfg rawip.Config, version wire.Version, err error) {
	if version, err = wire.ParseVersion(f.version); err != nil {
		return cfg, version, &usageError{cmd, fmt.Errorf("--speak %q is none of main, 6.10, stripped, 6.1", f.version)}
	}
	cfg = rawip.Config{Protocol: version.IPProtocol(), Device: f.device}
	for _, text := range f.bind {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return cfg, version, &usageError{cmd, fmt.Errorf("--bind %q is not an IP address", text)}
		}
		cfg.Local = append(cfg.Local, addr.Unmap())
	}
	return cfg, version, nil
}

// startNode starts a node on raw sockets, which belong to it.
func startNode(cfg rawip.Config, version wire.Version) (*rpc.Node, *rawip.Conn, error) {
	conn, err := rawip.Open(cfg)
	if err != nil {
		return nil, nil, err
	}
	node, err := rpc.NewNode(conn, rpc.Config{Engine: homa.Config{Peer: homa.PeerConfig{Version: version, VersionSet: true}}})
	return node, conn, err
}

// client starts a node that can call the server of the command line.
func (f *homaFlags) client(cmd *cobra.Command, server string) (*rpc.Node, netip.AddrPort, error) {
	cfg, version, err := f.parse(cmd)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	to, err := parseServer(cmd, server, cfg.Local)
	if err != nil {
		return nil, to, err
	}
	node, conn, err := startNode(cfg, version)
	if err != nil {
		return nil, to, err
	}
	if err := conn.CheckRoute(to.Addr()); err != nil {
		return nil, to, errors.Join(err, node.Close())
	}
	return node, to, nil
}

// parseServer reads the host and Homa port of a server, which must be of a family
// of local unless that is empty.
func parseServer(cmd *cobra.Command, text string, local []netip.Addr) (to netip.AddrPort, err error) {
	wrong := func(format string, args ...any) error { return &usageError{cmd, fmt.Errorf(format, args...)} }
	host, service, err := net.SplitHostPort(text)
	if err != nil {
		return to, wrong("%q has no port: want HOST:PORT, or [ADDRESS]:PORT for IPv6", text)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil || port == 0 {
		return to, wrong("port of %q is not in 1 to 65535", text)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil && host != "" {
		if addr, err = resolve(cmd.Context(), host, local, net.DefaultResolver.LookupNetIP); err != nil {
			return to, err
		}
	}
	addr = addr.Unmap()
	switch {
	case !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast():
		return to, wrong("%q is not the address of a host", host)
	case addr.Is6() && addr.IsLinkLocalUnicast() && addr.Zone() == "":
		return to, wrong("%s is link-local and says no device: want [%s%%DEVICE]:%d", addr, addr, port)
	case len(local) > 0 && !slices.ContainsFunc(local, sameFamily(addr)):
		return to, wrong("--bind has no address of the family of %s", addr)
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// sameFamily tells addresses of the family of a, IPv4 or IPv6.
func sameFamily(a netip.Addr) func(netip.Addr) bool {
	return func(b netip.Addr) bool { return a.Is4() == b.Is4() }
}

// lookupTime bounds how long a name is looked up.
const lookupTime = 5 * time.Second

// resolve gives the first address of a host that lookup finds, of a family of local
// if there is one.
func resolve(ctx context.Context, host string, local []netip.Addr,
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error),
) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addrs, err := lookup(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
		if slices.ContainsFunc(local, sameFamily(addrs[i])) {
			return addrs[i], nil
		}
	}
	return addrs[0], nil
}

// checkSize wants a message length that the protocol has.
func checkSize(cmd *cobra.Command, size int) error {
	if size < 1 || size > rpc.MaxMessage {
		return &usageError{cmd, fmt.Errorf("--size %d is not in 1 to %d", size, rpc.MaxMessage)}
	}
	return nil
}

// untilSignal is the context of a command that SIGINT and SIGTERM end.
func untilSignal(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
}

// seconds is the value of a flag for a time: seconds, or a number with a unit.
type seconds time.Duration

func (s *seconds) String() string { return time.Duration(*s).String() }
func (s *seconds) Type() string   { return "time" }

// Set is part of pflag.Value.
func (s *seconds) Set(text string) error {
	number := text
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		number += "s"
	}
	d, err := time.ParseDuration(number)
	if err != nil {
		return errors.New("want seconds, or a number with a unit such as 500ms")
	}
	*s = seconds(d)
	return nil
}

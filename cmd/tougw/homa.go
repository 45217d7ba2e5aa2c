package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/signal"
	"syscall"

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
module or with itself at the other end. It needs CAP_NET_RAW.`,
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

// open starts a node as the flags say. Its conn belongs to it.
func (f *homaFlags) open(cmd *cobra.Command) (*rpc.Node, *rawip.Conn, error) {
	version, err := wire.ParseVersion(f.version)
	if err != nil {
		return nil, nil, &usageError{cmd, fmt.Errorf("--speak %q is none of main, 6.10, stripped, 6.1", f.version)}
	}
	cfg := rawip.Config{Protocol: version.IPProtocol(), Device: f.device}
	for _, text := range f.bind {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, nil, &usageError{cmd, fmt.Errorf("--bind %q is not an IP address", text)}
		}
		cfg.Local = append(cfg.Local, addr)
	}
	conn, err := rawip.Open(cfg)
	if err != nil {
		return nil, nil, err
	}
	node, err := rpc.NewNode(conn, rpc.Config{Engine: homa.Config{Peer: homa.PeerConfig{Version: version, VersionSet: true}}})
	return node, conn, err
}

// parseServer reads the address and Homa port of a server.
func parseServer(cmd *cobra.Command, text string) (netip.AddrPort, error) {
	to, err := netip.ParseAddrPort(text)
	if err != nil {
		host, _, split := net.SplitHostPort(text)
		switch {
		case split != nil:
			return to, &usageError{cmd, fmt.Errorf("%q has no port: want ADDRESS:PORT, or [ADDRESS]:PORT for IPv6", text)}
		case !isAddress(host):
			return to, &usageError{cmd, fmt.Errorf("%q is not an IP address", host)}
		}
		return to, &usageError{cmd, fmt.Errorf("port of %q is not in 1 to 65535", text)}
	}
	if to.Addr().IsUnspecified() || to.Addr().IsMulticast() {
		return to, &usageError{cmd, fmt.Errorf("%q is not the address of a host", to.Addr().String())}
	}
	if to.Port() == 0 {
		return to, &usageError{cmd, fmt.Errorf("port of %q is not in 1 to 65535", text)}
	}
	return netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), nil
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
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

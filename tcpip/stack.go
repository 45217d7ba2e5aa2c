package tcpip

import (
	"fmt"
	"time"

	gtcpip "gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// nicID is the one network interface that each of our stacks has.
const nicID = 1

// newEdgeStack makes the stack that faces captured traffic. Its goroutines run
// until Destroy.
func newEdgeStack(l *link, b BufferConfig) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	// Reno: on a path without loss or delay both grow alike, and cubic's
	// HyStart takes scheduling jitter for a queue and leaves slow start early.
	cc := gtcpip.CongestionControlOption("reno")
	// The 4-tuple belongs to the application: while our end sits in TIME_WAIT
	// gVisor drops its next SYN. Over a device in the same machine nothing old
	// is under way, so one second is ample (default 60 s).
	timeWait := gtcpip.TCPTimeWaitTimeoutOption(time.Second)
	// FIN_WAIT_2 after Close: nobody will read what still comes, so an
	// application that holds its side open need not cost us an endpoint for
	// long (default 60 s).
	linger := gtcpip.TCPLingerTimeoutOption(15 * time.Second)
	opts := append(commonOptions(b), &cc, &timeWait, &linger)
	return s, setUp(s, l, opts, header.IPv4EmptySubnet, header.IPv6EmptySubnet)
}

// newTunnelStack makes the stack that speaks TCP over sessions. Its goroutines
// run until Destroy.
func newTunnelStack(l *link, cfg TunnelConfig) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	// Cubic: what hosts on shared paths run. Reno was ahead only where loss
	// meets no delay at all (0.1 % loss, 0 ms: 1457 against 457 Mbit/s), and
	// behind at 100 ms (3.4 against 17 Mbit/s with 0.1 % loss).
	cc := gtcpip.CongestionControlOption("cubic")
	// Ids are never reused, so TIME_WAIT only answers a repeated FIN
	// (default 60 s, 11.5 KB a flow).
	timeWait := gtcpip.TCPTimeWaitTimeoutOption(2 * time.Second)
	linger := gtcpip.TCPLingerTimeoutOption(15 * time.Second)
	// After an outage a flow resumes with the next retransmission. Back-off
	// bounded at MaxRTO makes that soon (default 120 s).
	maxRTO := gtcpip.TCPMaxRTOOption(cfg.MaxRTO)
	// With a short back-off the default of 15 retries would end a flow within
	// half a minute. Whether a peer is gone is the tunnel's to decide (Abort);
	// this only ends what everybody forgot, after a quarter of an hour.
	retries := gtcpip.TCPMaxRetriesOption(15 * time.Minute / cfg.MaxRTO)
	opts := append(commonOptions(cfg.Buffers), &cc, &timeWait, &linger, &maxRTO, &retries)
	return s, setUp(s, l, opts, header.IPv6EmptySubnet)
}

// commonOptions are the settings that both stacks share. Nagle's algorithm is
// off by default (TCPDelayEnabled): the bridge already writes as much as it has.
func commonOptions(b BufferConfig) []gtcpip.SettableTransportProtocolOption {
	// Selective acknowledgements: without them one lost segment of a 64 KiB
	// burst costs a time-out.
	sack := gtcpip.TCPSACKEnabled(true)
	// RACK: 457 against 88 Mbit/s at 0.1 % loss without delay.
	rack := gtcpip.TCPRACKLossDetection
	// Moderation is what makes the window scale fit the ceiling rather than
	// the initial size. It acts only when asked (Stream.Read does, once a
	// stream has earned it).
	moderate := gtcpip.TCPModerateReceiveBufferOption(true)
	recv := gtcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: b.InitialRecv, Max: b.MaxRecv}
	send := gtcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: b.InitialSend, Max: b.MaxSend}
	return []gtcpip.SettableTransportProtocolOption{&sack, &rack, &moderate, &recv, &send}
}

// setUp applies opts and gives s its one interface, which accepts packets to,
// and sends packets from, any address.
func setUp(s *stack.Stack, l *link, opts []gtcpip.SettableTransportProtocolOption, nets ...gtcpip.Subnet) error {
	fail := func(what string, err gtcpip.Error) error {
		s.Destroy()
		return fmt.Errorf("tcpip: %s: %s", what, err)
	}
	for _, o := range opts {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fail(fmt.Sprintf("set %T", o), err)
		}
	}
	if err := s.CreateNIC(nicID, l); err != nil {
		return fail("create interface", err)
	}
	// Spoofing lets endpoints have addresses the interface has not: without it
	// bind fails, and so does answering a SYN. Promiscuous mode is the same
	// for what arrives.
	if err := s.SetSpoofing(nicID, true); err != nil {
		return fail("set spoofing", err)
	}
	if err := s.SetPromiscuousMode(nicID, true); err != nil {
		return fail("set promiscuous mode", err)
	}
	var routes []gtcpip.Route
	for _, n := range nets {
		routes = append(routes, gtcpip.Route{Destination: n, NIC: nicID})
	}
	s.SetRouteTable(routes)
	l.inline = newInliner(s)
	return nil
}

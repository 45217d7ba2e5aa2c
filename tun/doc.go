// Package tun owns the TUN device that captures the packets of this host: the
// device with its queues and offloads, and everything that has to be set on
// the host for packets to reach it (addresses, routes, policy rules, sysctls).
// The entry point is [Open]; what it returns is a [Device]. Of the packets
// themselves it knows no more than a checksum: peers, flows and protocols are
// the business of others.
//
// # Backends
//
// BackendNetlink makes the device through vishvananda/netlink with
// IFF_VNET_HDR and IFF_MULTI_QUEUE, so packets travel with struct
// virtio_net_hdr (kernel uapi linux/virtio_net.h): TCP super-packets of up to
// 64 KiB in both directions, and checksums that nobody computes twice. UDP
// segmentation (TUN_F_USO4 and USO6, since Linux 6.2) is left off on purpose:
// captured UDP is answered with ICMP, and a reader that does not expect UDP
// super-packets must not be handed one.
//
// BackendWater makes it through songgao/water: one queue, no offloads, every
// packet complete, one packet per system call. It is for kernels and sandboxes
// whose TUN has no vnet header. A checksum that is still open is completed
// here, in software; a packet that is still to be cut is refused, for
// [Capabilities] told its maker not to make one.
//
// BackendAuto takes the first of the two that works, and keeps the reason of a
// fallback in Capabilities.
//
// # Routes and policy rules
//
// The routes of [Config] do not go into the main table, where our own packets
// to a peer would follow them back into the tunnel, but into tables of our
// own, one for each prefix length. Two policy rules for each length, longest
// first, merge them with the main table so that the longest prefix still wins
// and ours wins a tie:
//
//	from all lookup main suppress_prefixlength LENGTH
//	not from all fwmark MARK lookup TABLE
//
// A network that the host is attached to is therefore reached directly also
// under a captured default route, and a socket with SO_MARK set to the mark
// sees the routing of the host as it would be without us. What the marks
// cannot prevent (a route of somebody else, or the network of the device's own
// address, leading to a peer through the device) is refused at start as a
// [LoopError].
//
// Nothing watches the rules afterwards. Known to remove those of others is
// systemd-networkd, when it starts and unless its configuration says
// ManageForeignRoutingPolicyRules=no; captured traffic then takes its other
// way.
//
// Under a captured route, strict reverse path filtering (net.ipv4.conf.*.
// rp_filter = 1) drops the answers of peers: the kernel looks their source up
// without a mark and finds the device. net.ipv4.conf.all.src_valid_mark does
// not help, for an arriving packet has no mark unless a firewall restores one.
// Only where strict filtering is in force, Open loosens it for the network
// namespace (net.ipv4.conf.all.rp_filter = 2) and Close sets it back. Two
// devices of one namespace that both need this are not coordinated.
//
// # Cleaning up
//
// Close takes back everything. For the run that is killed there is a journal
// in [Config].RunDir: what is about to be added is written there first, and
// the next Open of the same name in the same network namespace removes it.
// A lock beside the journal, which the kernel drops when a process ends in
// whatever way, tells a killed run from a live one. A device that is not
// ours is never touched.
//
// # Concurrency and buffers
//
// A Device is safe for concurrent use. Calls of Read for one queue wait for
// each other, and so do calls of Write; different queues, and the two
// directions, are independent. Read and Write borrow the slices they are given
// until they return, and allocate nothing.
package tun

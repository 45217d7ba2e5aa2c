// Package policy decides what happens to a flow: the rules for captured flows
// and the accept rules for flows that peers open. It is pure: it knows names,
// addresses and ports, and neither the configuration file nor how a flow is
// carried.
//
// The entry type is Table. The first rule that matches wins.
//
// # Closed unless opened
//
// An accept table has a Guard. The addresses it names (this host's own,
// loopback, link-local, multicast, unspecified, and those of the metadata
// services of clouds) are reached only by a rule that lists the address itself,
// as a prefix of that single address. A rule that merely covers one of them
// does not match it if the rule would let the flow pass; one that rejects does.
//
// # Addresses in other clothes
//
// An IPv4-mapped address (::ffff:0:0/96) is the IPv4 address to every rule,
// because that is where the kernel would connect to. Addresses that carry an
// IPv4 address for a translator or relay on the way (NAT64 with the well-known
// and the local prefix, 6to4, IPv4-compatible, IPv4-translated) are matched as
// the IPv6 addresses they are, because they go elsewhere than the IPv4 address,
// but are as closed as what they carry. NAT64 with a prefix of the network's own
// cannot be recognised: reject that prefix if such a translator stands behind
// the gateway and translates to closed addresses. Zones are ignored.
//
// This host's addresses are those of its interfaces. Addresses that only a route
// of type local makes its own are not seen: reject them.
//
// # Concurrency
//
// Everything is safe for concurrent use; a decision allocates nothing, except
// once a second for the list of this host's addresses.
package policy

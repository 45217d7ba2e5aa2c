// Package testnet builds small internets out of network namespaces and veth
// pairs, for end-to-end tests, the demo and the benchmarks. It needs root and
// the kernel's namespaces; Probe says whether they are there.
//
// A Net of one site looks like this (each box is a namespace, N the network's
// number of the site, counted from 0):
//
//	┌─ app ─────┐    ┌─ client gateway ─┐    ┌─ Internet ────────┐    ┌─ gateway ──────┐    ┌─ server ──────┐
//	│      eth0 ├────┤ lan0        wan0 ├────┤ siteN        gw0  ├────┤ wan0      lan0 ├────┤ eth0          │
//	└───────────┘    └──────────────────┘    └───────────────────┘    └────────────────┘    └───────────────┘
//	  10.1.0.2    10.1.0.1   192.0.2.4N+2   192.0.2.4N+1  203.0.113.1   203.0.113.7   198.51.100.1   198.51.100.2
//	 fd00:1::2   fd00:1::1  2001:db8:1:N::2 2001:db8:1:N::1 2001:db8:2::1 2001:db8:2::7 2001:db8:3::1 2001:db8:3::2
//
// Every site has the same inner addresses, as homes behind a NAT do. The
// application's and the server's default routes lead to their gateways, those
// of the gateways to the Internet; the Internet knows nothing behind them, so
// that what is not tunnelled arrives nowhere (RoutePlain changes that, for a
// comparison). With Options.AppOnGateway there is no app namespace: programs
// then run beside the client gateway, in its namespace.
//
// Namespaces are named, so that `ip netns exec NAME` works while a run lasts.
// Names are unique to the run, and what a killed run left behind is removed by
// the next one: its programs die with the process that started them, and its
// namespaces are recognised by a lock that nobody holds any more.
package testnet

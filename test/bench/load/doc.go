// Package load makes the small-message traffic of the benchmarks and measures
// it: requests and replies over open connections, connections that are opened
// and closed, and connections that are open and idle. Server answers all of
// them. Bulk traffic is iperf3's business.
//
// Clients and server run as processes of their own, inside the namespaces of
// the application and of the server: RunServer, RunRequests, RunConnections and
// RunIdle are the bodies of these processes. Nothing here runs longer than it
// was told to plus a few seconds.
package load

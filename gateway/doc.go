// Package gateway makes a running gateway of a configuration: it knows every
// part and the order in which they start and stop, and no header layouts. New
// has no effect outside the process; everything on the host (sockets, device,
// addresses, routes) is made by Run and gone when Run has returned.
package gateway

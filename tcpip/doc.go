// Package tcpip ends TCP in user space, on gVisor's network stack.
package tcpip

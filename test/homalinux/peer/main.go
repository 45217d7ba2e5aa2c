//go:build linux

// Command peer is the other end of the tests in test/homalinux, for a Linux host
// that has the Homa module loaded. It serves and calls through the kernel's Homa
// sockets.
//
//	peer [-old] serve PORT
//	peer [-old] [-size BYTES] [-count CALLS] [-outstanding CALLS] call ADDRESS:PORT
//
// serve echoes on PORT over IPv4 and IPv6 until it is killed. call makes CALLS, so
// many at a time, compares each response with its request, prints a line for each
// kind of failure, and its exit code is 1 if there was one. -old is for the module's
// branch linux_6.1.38; then serve answers IPv4 on the port after PORT.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
)

// servers are how many requests a family's server answers at a time.
const servers = 8

func main() {
	old := flag.Bool("old", false, "speak to the module's branch linux_6.1.38")
	size := flag.Int("size", 100, "length of a request in `BYTES`")
	count := flag.Int("count", 1, "number of `CALLS`")
	outstanding := flag.Int("outstanding", 1, "number of `CALLS` at a time")
	flag.Parse()
	var err error
	switch {
	case flag.NArg() == 2 && flag.Arg(0) == "serve":
		err = serve(flag.Arg(1), *old)
	case flag.NArg() == 2 && flag.Arg(0) == "call" && *size >= 1 && *size <= maxMessage && *count > 0 && *outstanding > 0:
		err = call(flag.Arg(1), *size, *count, *outstanding, *old)
	default:
		fmt.Fprintln(os.Stderr, "usage: peer [flags] serve PORT | call ADDRESS:PORT")
		flag.PrintDefaults()
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func serve(port string, old bool) error {
	number, err := strconv.ParseUint(port, 10, 15)
	if err != nil {
		return fmt.Errorf("port %q: %w", port, err)
	}
	// Two sockets cannot have one port. One of IPv6 answers IPv4 too, but on the old
	// module it has no route for it.
	s, err := listen(true, old, uint16(number))
	if err != nil {
		return err
	}
	sockets := []*socket{s}
	if old {
		if s, err = listen(false, old, uint16(number)+1); err != nil {
			return err
		}
		sockets = append(sockets, s)
	}
	fmt.Println("serving", number)
	failed := make(chan error)
	for _, s := range sockets {
		var receiving sync.Mutex // pages go back in the order in which they came
		for range servers {
			go func() {
				buffer := make([]byte, maxMessage)
				for {
					receiving.Lock()
					request, id, from, err := s.receive(buffer, true)
					receiving.Unlock()
					if err == nil {
						err = s.send(&from, id, request)
					}
					if err != nil {
						failed <- err
					}
				}
			}()
		}
	}
	for err := range failed {
		fmt.Fprintln(os.Stderr, "peer:", err) // of one RPC: the others go on
	}
	return nil
}

// listen opens the socket of a port.
func listen(ipv6, old bool, port uint16) (*socket, error) {
	s, err := newSocket(ipv6, old)
	if err != nil {
		return nil, err
	}
	if err := s.bind(ipv6, port); err != nil {
		s.close()
		return nil, fmt.Errorf("port %d: %w", port, err)
	}
	return s, nil
}

func call(server string, size, count, outstanding int, old bool) error {
	to, err := netip.ParseAddrPort(server)
	if err != nil {
		return err
	}
	var left atomic.Int64
	left.Store(int64(count))
	var mu sync.Mutex
	failures := map[string]int{}
	var group sync.WaitGroup
	for worker := range min(outstanding, count) {
		s, err := newSocket(to.Addr().Is6(), old)
		if err != nil {
			return err
		}
		defer s.close()
		group.Go(func() {
			request, buffer := make([]byte, size), make([]byte, maxMessage)
			for left.Add(-1) >= 0 {
				for i := range request {
					request[i] = byte(i ^ i>>8*31 ^ i>>16*17 ^ worker)
				}
				err := s.send(address(to), 0, request)
				var response []byte
				if err == nil {
					response, _, _, err = s.receive(buffer, false)
				}
				if err == nil && !bytes.Equal(response, request) {
					err = fmt.Errorf("the response, of %d bytes, is not the request", len(response))
				}
				if err != nil {
					mu.Lock()
					failures[err.Error()]++
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	failed := 0
	for reason, n := range failures {
		fmt.Printf("%d calls: %s\n", n, reason)
		failed += n
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d calls to %v failed", failed, count, to)
	}
	return nil
}

package load

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Ports is how many ports a server listens on. Clients spread their
// connections over them, because a connection that was closed keeps its pair of
// ports busy for a minute.
const Ports = 16

// readSize is enough for every request, and small for the sake of 10,000 idle
// connections.
const readSize = 4096

// RunServer is what t says, until ctx ends: it echoes what it gets.
func RunServer(ctx context.Context, t Target) error {
	var listeners []net.Listener
	closeAll := func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	}
	defer closeAll()
	config := net.ListenConfig{Control: t.control}
	for i := range Ports {
		l, err := config.Listen(ctx, "tcp", t.port(i))
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	stop := context.AfterFunc(ctx, closeAll)
	defer stop()
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() { accept(ctx, l) })
	}
	wg.Wait()
	return nil
}

// accept serves the connections of a listener until that is closed.
func accept(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			go echo(conn)
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of descriptors, or a connection that was reset in the queue.
			time.Sleep(time.Millisecond)
		}
	}
}

// echo ends with its connection; TCP_NODELAY is on, as Go has it.
func echo(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, readSize)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

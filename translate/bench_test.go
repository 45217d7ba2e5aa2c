package translate

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/tougw/tougw/homa"
)

// BenchmarkRequest is one small request and its answer, TCP to Homa to TCP, on a
// network in memory, against a direct connection.
func BenchmarkRequest(b *testing.B) {
	server := serveTCP(b, func(conn *net.TCPConn) {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			for range bytes.Count(buf[:n], []byte("*")) {
				if _, err := conn.Write([]byte("+OK\r\n")); err != nil {
					return
				}
			}
		}
	})
	run := func(b *testing.B, conn *net.TCPConn, depth int) {
		request := bytes.Repeat([]byte(command("GET", "a")), depth)
		answer := make([]byte, 5*depth)
		for b.Loop() {
			if _, err := conn.Write(request); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, answer); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("direct", func(b *testing.B) { run(b, dial(b, server), 1) })
	for name, depth := range map[string]int{"translated": 1, "pipelined": 20} {
		b.Run(name, func(b *testing.B) {
			f := newFabric(b, nil, homa.Config{})
			f.reverse(b, framingOf(b, respConfig), NewTracer(TracerConfig{}), server)
			_, addr := f.forward(b, framingOf(b, respConfig), NewTracer(TracerConfig{}))
			b.ReportAllocs()
			run(b, dial(b, addr), depth)
		})
	}
}

// BenchmarkStream is bulk through stream framing.
func BenchmarkStream(b *testing.B) {
	f := newFabric(b, nil, homa.Config{})
	f.reverse(b, framingOf(b, streamConfig), nil, newEcho(b))
	_, addr := f.forward(b, framingOf(b, streamConfig), nil)
	conn := dial(b, addr)
	buf := make([]byte, 1<<20)
	go func() {
		for {
			if _, err := conn.Write(buf[:64<<10]); err != nil {
				return
			}
		}
	}()
	in := make([]byte, 64<<10)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if _, err := io.ReadFull(conn, in); err != nil {
			b.Fatal(err)
		}
	}
}

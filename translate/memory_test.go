package translate

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tougw/tougw/framing"
	"github.com/tougw/tougw/homa"
)

// TestMemoryIsBounded has 1,000 clients send 1 MB each to a server that has stopped,
// through both directions, and looks at what is held meanwhile. Then the server
// goes on, and everything arrives.
func TestMemoryIsBounded(t *testing.T) {
	const size = 999_000
	clients := 1000
	if raceEnabled {
		clients = 100 // the detector costs too much for more
	}
	for _, config := range []framing.Config{prefixConfig, respConfig, streamConfig} {
		t.Run(config.Type, func(t *testing.T) {
			engine := homa.Config{Peer: homa.PeerConfig{TimeoutTicks: 30_000}, SendMemory: 32 << 20, ReceiveMemory: 32 << 20, ReceiveWindow: 64 << 10, SendAhead: 32 << 10}
			f := newFabric(t, nil, engine)
			stopped := make(chan bool)
			answer := map[string]string{framing.TypeRESP: "+OK\r\n", framing.TypeLengthPrefixed: "\x00\x00\x00\x02OK", framing.TypeStream: "OK"}[config.Type]
			server := serveTCP(t, func(conn *net.TCPConn) {
				_ = conn.SetReadBuffer(8 << 10) // a full one must not take a whole message
				<-stopped
				_ = conn.SetReadBuffer(1 << 20)
				buf := make([]byte, 64<<10)
				for total := 0; ; {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					for total += n; total >= size; total -= size {
						if _, err := conn.Write([]byte(answer)); err != nil {
							return
						}
					}
				}
			})
			message := func() []byte {
				switch config.Type {
				case framing.TypeRESP:
					head := "*3\r\n$3\r\nSET\r\n$1\r\na\r\n"
					head += fmt.Sprintf("$%d\r\n", size-len(head)-11)
					return append(append([]byte(head), make([]byte, size-len(head)-2)...), "\r\n"...)
				case framing.TypeLengthPrefixed:
					return prefixed(make([]byte, size-4))
				}
				return make([]byte, size)
			}()
			rule := framingOf(t, config)
			rule.Timeouts = Timeouts{Request: -1, Write: -1, Idle: -1} // a busy machine takes long
			tracer := NewTracer(TracerConfig{})
			r := f.reverse(t, rule, tracer, server)
			fw, addr := f.forward(t, rule, tracer)
			before := heapInUse()
			var wg sync.WaitGroup
			for range clients {
				conn := dial(t, addr)
				_ = conn.SetDeadline(time.Time{})
				wg.Go(func() {
					if _, err := conn.Write(message); err != nil {
						t.Error(err)
					}
					got := make([]byte, len(answer))
					if _, err := io.ReadFull(conn, got); err != nil || string(got) != answer {
						t.Errorf("%q, %v", got, err)
					}
				})
			}
			var last uint64
			still := 0
			eventually(t, "everything stands", func() bool {
				runtime.Gosched()
				s := fw.Stats()
				if still++; s.BytesIn != last || s.Conns != clients {
					last, still = s.BytesIn, 0
				}
				return still > 100
			})
			held := heapInUse() - before
			a, b := fw.Stats(), r.Stats()
			t.Logf("%d MB came in, %d MB are held, %d requests wait for a place", a.BytesIn>>20, held>>20, a.Waiting)
			// Buffers of the clients and handlers, and the bounds of the two engines with
			// what their chunks are rounded up by.
			if limit := int64(clients*(largeBuffer+smallBuffer)) + 4*(engine.SendMemory+engine.ReceiveMemory); held > limit {
				t.Errorf("%d bytes are held, limit %d", held, limit)
			}
			if limit := int64(defaultBuffered); a.Buffered > limit || b.Buffered > limit+int64(clients*leastWindow) {
				t.Errorf("%d and %d bytes are buffered", a.Buffered, b.Buffered)
			}
			close(stopped)
			wg.Wait()
			for _, failed := range tracer.Last(Filter{Failed: true}) {
				t.Errorf("%+v", failed)
			}
		})
	}
}

// heapInUse is what is in use.
func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools keep goes with the second one
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) + int64(m.StackInuse)
}

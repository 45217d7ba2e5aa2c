package translate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The servers of this file are small and real: they speak their protocol with any
// client.

// redisServer knows GET, SET, DEL, INCR, APPEND, ECHO, PING, LRANGE and BLPOP of one
// list that nobody fills.
type redisServer struct {
	mu       sync.Mutex
	data     map[string]string
	commands []string // in the order of their execution
}

func newRedis(t testing.TB) (*redisServer, netip.AddrPort) {
	s := &redisServer{data: map[string]string{}}
	return s, serveTCP(t, s.serve)
}

func (s *redisServer) serve(conn *net.TCPConn) {
	r := bufio.NewReader(conn)
	w := bufio.NewWriter(conn)
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		args, err := readCommand(r)
		if err != nil {
			_ = w.Flush()
			return
		}
		s.execute(w, args)
	}
}

func readCommand(r *bufio.Reader) ([]string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if !strings.HasPrefix(line, "*") {
		return strings.Fields(line), nil
	}
	n, err := strconv.Atoi(line[1:])
	if err != nil {
		return nil, err
	}
	var args []string
	for range n {
		if line, err = r.ReadString('\n'); err != nil {
			return nil, err
		}
		size, err := strconv.Atoi(strings.TrimSuffix(line[1:], "\r\n"))
		if err != nil {
			return nil, err
		}
		arg := make([]byte, size+2)
		if _, err := io.ReadFull(r, arg); err != nil {
			return nil, err
		}
		args = append(args, string(arg[:size]))
	}
	return args, nil
}

func (s *redisServer) execute(w *bufio.Writer, args []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	bulk := func(v string) { fmt.Fprintf(w, "$%d\r\n%s\r\n", len(v), v) }
	s.commands = append(s.commands, arg(0)+" "+arg(1))
	switch strings.ToUpper(arg(0)) {
	case "PING":
		fmt.Fprint(w, "+PONG\r\n")
	case "ECHO":
		bulk(arg(1))
	case "SET":
		s.data[arg(1)] = arg(2)
		fmt.Fprint(w, "+OK\r\n")
	case "GET":
		if v, ok := s.data[arg(1)]; ok {
			bulk(v)
		} else {
			fmt.Fprint(w, "$-1\r\n")
		}
	case "APPEND":
		s.data[arg(1)] += arg(2)
		fmt.Fprintf(w, ":%d\r\n", len(s.data[arg(1)]))
	case "INCR":
		n, _ := strconv.Atoi(s.data[arg(1)])
		s.data[arg(1)] = strconv.Itoa(n + 1)
		fmt.Fprintf(w, ":%d\r\n", n+1)
	case "LRANGE":
		n, _ := strconv.Atoi(arg(3))
		fmt.Fprintf(w, "*%d\r\n", n)
		for i := range n {
			bulk(strconv.Itoa(i))
		}
	default:
		fmt.Fprintf(w, "-ERR unknown command '%s'\r\n", arg(0))
	}
}

// newMemcached knows get, set, delete, version, mg, ms and mn, and noreply and q.
func newMemcached(t testing.TB) netip.AddrPort {
	var mu sync.Mutex
	data := map[string]string{}
	return serveTCP(t, func(conn *net.TCPConn) {
		r := bufio.NewReader(conn)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			w := strings.Fields(line)
			var value string
			if w[0] == "set" || w[0] == "ms" {
				at := 4
				if w[0] == "ms" {
					at = 2
				}
				n, _ := strconv.Atoi(w[at])
				block := make([]byte, n+2)
				if _, err := io.ReadFull(r, block); err != nil {
					return
				}
				value = string(block[:n])
			}
			quiet := w[len(w)-1] == "noreply" || w[len(w)-1] == "q"
			answer := "ERROR\r\n"
			mu.Lock()
			switch w[0] {
			case "set":
				data[w[1]], answer = value, "STORED\r\n"
			case "get":
				answer = ""
				for _, key := range w[1:] {
					if v, ok := data[key]; ok {
						answer += fmt.Sprintf("VALUE %s 0 %d\r\n%s\r\n", key, len(v), v)
					}
				}
				answer += "END\r\n"
			case "delete":
				answer = "NOT_FOUND\r\n"
				if _, ok := data[w[1]]; ok {
					answer = "DELETED\r\n"
				}
				delete(data, w[1])
			case "version":
				answer = "VERSION 1\r\n"
			case "mn":
				answer = "MN\r\n"
			case "ms":
				data[w[1]], answer = value, "HD\r\n"
			case "mg":
				answer = "EN\r\n"
				if v, ok := data[w[1]]; ok {
					answer, quiet = fmt.Sprintf("VA %d\r\n%s\r\n", len(v), v), false
				}
			}
			mu.Unlock()
			if quiet {
				continue
			}
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
		}
	})
}

// newDNS answers a query with itself as a response; those for names that begin with
// `s` are answered behind the next query, if one comes soon.
func newDNS(t testing.TB) netip.AddrPort {
	return serveTCP(t, func(conn *net.TCPConn) {
		var held []byte
		for {
			var size [2]byte
			if held != nil {
				_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			}
			_, err := io.ReadFull(conn, size[:])
			_ = conn.SetReadDeadline(time.Time{})
			if errors.Is(err, os.ErrDeadlineExceeded) {
				_, err = conn.Write(held)
				held = nil
				if err == nil {
					continue
				}
			}
			if err != nil {
				_, _ = conn.Write(held)
				return
			}
			msg := make([]byte, 2+binary.BigEndian.Uint16(size[:]))
			copy(msg, size[:])
			if _, err := io.ReadFull(conn, msg[2:]); err != nil {
				return
			}
			msg[4] |= 0x80
			if len(msg) > 15 && msg[15] == 's' && held == nil {
				held = msg
				continue
			}
			if _, err := conn.Write(append(msg, held...)); err != nil {
				return
			}
			held = nil
		}
	})
}

func dnsQuery(id uint16, name string) []byte {
	msg := binary.BigEndian.AppendUint16(nil, id)
	msg = append(msg, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(name)))
	msg = append(append(msg, name...), 0, 0, 1, 0, 1)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

// newHTTP serves /n with n bytes, /chunked/n with n bytes in chunks, and /echo.
func newHTTP(t testing.TB) netip.AddrPort {
	l := listen(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		plain(w, len(body))
		_, _ = w.Write(body)
	})
	mux.HandleFunc("/chunked/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/chunked/"))
		w.Header()["Date"] = nil
		for rest := text(n); len(rest) > 0; {
			k := min(len(rest), 1000)
			_, _ = w.Write(rest[:k])
			w.(http.Flusher).Flush()
			rest = rest[k:]
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		plain(w, n)
		_, _ = w.Write(text(n))
	})
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return addrPort(l.Addr())
}

// plain sets headers that are the same each time.
func plain(w http.ResponseWriter, n int) {
	w.Header()["Date"] = nil
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(n))
}

// newPrefixed answers messages behind 4 bytes of length with their bytes turned
// around.
func newPrefixed(t testing.TB) netip.AddrPort {
	return serveTCP(t, func(conn *net.TCPConn) {
		r := bufio.NewReader(conn)
		for {
			var size [4]byte
			if _, err := io.ReadFull(r, size[:]); err != nil {
				return
			}
			msg := make([]byte, binary.BigEndian.Uint32(size[:]))
			if _, err := io.ReadFull(r, msg); err != nil {
				return
			}
			for i, j := 0, len(msg)-1; i < j; i, j = i+1, j-1 {
				msg[i], msg[j] = msg[j], msg[i]
			}
			if _, err := conn.Write(append(size[:], msg...)); err != nil {
				return
			}
		}
	})
}

func prefixed(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(msg))), msg...)
}

// newLines answers lines with themselves in upper case.
func newLines(t testing.TB) netip.AddrPort {
	return serveTCP(t, func(conn *net.TCPConn) {
		r := bufio.NewReader(conn)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if _, err := io.WriteString(conn, strings.ToUpper(line)); err != nil {
				return
			}
		}
	})
}

// newEcho echoes bytes until the client's end, then ends too.
func newEcho(t testing.TB) netip.AddrPort {
	return serveTCP(t, func(conn *net.TCPConn) {
		_, _ = io.Copy(conn, conn)
	})
}

package framing

import (
	"strings"
	"testing"
)

func TestEncoderWraps(t *testing.T) {
	for _, c := range []struct {
		config     Config
		data, want string
	}{
		{Config{Type: "length-prefixed", Bytes: 4, Strip: true}, "abc", "\x00\x00\x00\x03abc"},
		{Config{Type: "length-prefixed", Bytes: 2, Order: "little", Counts: "message", Strip: true}, "abc", "\x05\x00abc"},
		{Config{Type: "length-prefixed", Varint: true, Strip: true}, strings.Repeat("a", 300), "\xac\x02" + strings.Repeat("a", 300)},
		{Config{Type: "length-prefixed", Varint: true, Order: "big", Strip: true}, strings.Repeat("a", 300), "\x82\x2c" + strings.Repeat("a", 300)},
		{Config{Type: "length-prefixed", Bytes: 1}, "\x02ab", "\x02ab"},
		{Config{Type: "delimiter", Delimiter: []byte("\r\n"), Strip: true}, "abc\r", "abc\r\r\n"},
		{Config{Type: "delimiter", Delimiter: []byte("\n")}, "abc\n", "abc\n"},
		{Config{Type: "dns"}, "\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x0c\x00\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		{Config{Type: "memcached"}, "mg a v q\r\n", "mg a v q\r\nmn\r\n"},
		{Config{Type: "stream"}, "abc", "abc"},
	} {
		for _, by := range []split{whole, bytewise} {
			wire, _, err := encode(mustNew(t, c.config).RequestEncoder(), []byte(c.data), nil, by)
			if err != nil || string(wire) != c.want {
				t.Errorf("%+v: %q, want %q: %v", c.config, wire, c.want, err)
			}
		}
	}
}

// What a message must not be: less or more than one.
func TestEncoderRefuses(t *testing.T) {
	for _, c := range []struct {
		config     Config
		data, want string
	}{
		{Config{Type: "resp"}, "", "is empty"},
		{Config{Type: "resp"}, "PING\r\nPING\r\n", "6 bytes follow the end"},
		{Config{Type: "resp"}, "\r\n", "nothing to forward"},
		{Config{Type: "resp"}, "PING", "ended within"},
		{Config{Type: "resp", Max: 5}, "PING\r\n", "larger than 5"},
		{Config{Type: "http1"}, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", "3 bytes follow the end"},
		{Config{Type: "memcached"}, "get a\r\nget b\r\n", "7 bytes follow the end"},
		{Config{Type: "memcached"}, "set a 0 0 9\r\nx\r\n", "ended within"},
		{Config{Type: "dns"}, "\x00\x01\x01\x00", "shorter than its header"},
		{Config{Type: "dns"}, "\x00\x01\x81\x00\x00\x00\x00\x00\x00\x00\x00\x00", "no request"},
		{Config{Type: "length-prefixed", Bytes: 1}, "\x02abc", "1 bytes follow the end"},
		{Config{Type: "length-prefixed", Bytes: 1}, "\x02a", "ended within"},
		{Config{Type: "length-prefixed", Bytes: 1, Strip: true}, strings.Repeat("a", 256), "larger than 255"},
		{Config{Type: "delimiter", Delimiter: []byte("\n"), Strip: true}, "a\nb", "holds the delimiter"},
		{Config{Type: "delimiter", Delimiter: []byte("\n"), Strip: true}, "a\n", "holds the delimiter"},
		{Config{Type: "delimiter", Delimiter: []byte("abab"), Strip: true}, "xab", "holds the delimiter"},
		{Config{Type: "delimiter", Delimiter: []byte("\n")}, "a\nb\n", "2 bytes follow the end"},
		{Config{Type: "delimiter", Delimiter: []byte("\n")}, "a", "ended within"},
	} {
		for _, by := range []split{whole, bytewise} {
			e := mustNew(t, c.config).RequestEncoder()
			_, _, err := encode(e, []byte(c.data), nil, by)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v %q: error %v, want %q", c.config, c.data, err, c.want)
			}
		}
	}
}

// A message that is refused leaves the encoder in order; one that is wrong ends
// the connection.
func TestEncoderGoesOn(t *testing.T) {
	e := mustNew(t, Config{Type: "resp"}).RequestEncoder()
	for _, c := range []struct{ data, want string }{
		{"PING\r\n", "PING\r\n"}, {"MONITOR\r\n", ""}, {"GET a\r\n", "GET a\r\n"},
	} {
		wire, r, err := encode(e, []byte(c.data), nil, whole)
		if err != nil || string(wire) != c.want || (r.Refused == nil) != (c.want != "") {
			t.Errorf("%q became %q, %v, %v", c.data, wire, r.Refused, err)
		}
	}
	if _, err := e.Begin(nil, 1_000_001, nil); err == nil {
		t.Error("a message above the maximum is begun")
	}
	if _, _, err := encode(e, []byte("PING\r\n"), nil, whole); err != nil {
		t.Error(err)
	}
	_, _, first := encode(e, []byte("PING\r\nPING\r\n"), nil, whole)
	if _, _, err := encode(e, []byte("PING\r\n"), nil, whole); first == nil || err != first {
		t.Errorf("after %v comes %v", first, err)
	}
}

func TestChunk(t *testing.T) {
	c := Chunk{Flags: ChunkOpen | ChunkFin, Length: 3, Stream: 0x0102030405060708, Limit: 1 << 20, Received: 5}
	b := c.Append(nil)
	if want := "T\x02\x03\x00\x00\x00\x00\x03\x01\x02\x03\x04\x05\x06\x07\x08" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05"; string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
	var d Chunk
	if err := d.Decode(append(b, "abc"...), 43); err != nil || d != c {
		t.Errorf("%+v: %v", d, err)
	}
	for _, bad := range []struct {
		at     int
		to     byte
		length int64
		want   string
	}{
		{0, 'T', 39, "shorter than its header"},
		{0, 'U', 43, "begins with"},
		{1, 1, 43, "begins with"},
		{2, 0x1b, 43, "unknown flags 0x10"},
		{2, 0x0f, 43, "a reset and more"},
		{2, 0x08, 43, "a poll and more"},
		{3, 1, 43, "a reason and is no reset"},
		{7, 4, 43, "tells of 4 bytes"},
		{7, 3, 44, "tells of 3 bytes"},
		{23, 1, 43, "opens a stream at offset 1"},
		{24, 0x40, 43, "beyond the largest offset"},
		{32, 0x40, 43, "beyond the largest offset"},
	} {
		b := c.Append(nil)
		b[bad.at] = bad.to
		if err := d.Decode(b, bad.length); err == nil || !strings.Contains(err.Error(), bad.want) || d != (Chunk{}) {
			t.Errorf("byte %d as %#x: %v, want %q", bad.at, bad.to, err, bad.want)
		}
	}
	for n := range ChunkHeaderLen {
		if err := d.Decode(b[:n], int64(n)); err == nil {
			t.Errorf("%d bytes are a chunk", n)
		}
	}
	for r := range resetReasons + 1 {
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
}

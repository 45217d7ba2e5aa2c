package framing

import (
	"strings"
	"testing"
)

func TestNewNamesTheKey(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   string // the errors, joined by |
	}{
		{Config{}, `type: "" is not one of length-prefixed, delimiter, http1, resp, memcached, dns, stream`},
		{Config{Type: "http2"}, `type: "http2" is not one of length-prefixed, delimiter, http1, resp, memcached, dns, stream`},
		{Config{Type: "resp", Max: -1}, "max: -1 is not in 1 to 1073741824"},
		{Config{Type: "resp", Max: Largest + 1}, "max: 1073741825 is not in 1 to 1073741824"},
		{Config{Type: "resp", Head: 100, Depth: 1000, ConnectionState: "keep"},
			`head: 100 is not in 512 to 1048576|depth: 1000 is not in 1 to 128|connection_state: "keep" is not one of refuse, pass`},
		{Config{Type: "resp", Bytes: 4, Order: "big", Strip: true},
			"bytes: messages of type resp do not have it|order: messages of type resp do not have it|keep: messages of type resp do not have it"},
		{Config{Type: "length-prefixed"}, "bytes: 0 is not one of 1, 2, 4, 8, varint"},
		{Config{Type: "length-prefixed", Bytes: 3, Order: "middle", Offset: 2000, Counts: "all"},
			`bytes: 3 is not one of 1, 2, 4, 8, varint|order: "middle" is not one of big, little|offset: 2000 is not in 0 to 1024|counts: "all" is not one of after, length, message`},
		{Config{Type: "length-prefixed", Bytes: 4, Varint: true}, "bytes: is either varint or a number"},
		{Config{Type: "length-prefixed", Bytes: 4, Offset: 1, Strip: true}, "keep: false would lose the 1 bytes before the length"},
		{Config{Type: "length-prefixed", Varint: true, Counts: "length", Strip: true}, "counts: length is ambiguous for a varint that is not kept"},
		{Config{Type: "length-prefixed", Bytes: 8, Max: 7}, "max: 7 is less than the header of a message"},
		{Config{Type: "delimiter"}, "delimiter: has 0 bytes, which is not in 1 to 64"},
		{Config{Type: "delimiter", Delimiter: make([]byte, 65)}, "delimiter: has 65 bytes, which is not in 1 to 64"},
		{Config{Type: "delimiter", Delimiter: []byte("abc"), Max: 2}, "max: 2 is less than the delimiter"},
		{Config{Type: "dns", Max: 11}, "max: 11 is less than the 12 bytes of a DNS header"},
		{Config{Type: "stream", Max: 32}, "max: 32 leaves no room behind the 40 bytes of a header"},
		{Config{Type: "http1", Pipeline: true}, "pipeline: messages of type http1 do not have it"},
	} {
		f, err := New(c.config)
		if f != nil || err == nil {
			t.Errorf("%+v: no error", c.config)
			continue
		}
		var got []string
		for _, e := range KeyErrors(err) {
			got = append(got, e.Key+": "+e.Msg)
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%+v:\n%s\nwant\n%s", c.config, s, c.want)
		}
		if !strings.Contains(err.Error(), "framing: "+got[0]) {
			t.Errorf("%v", err)
		}
	}
	if KeyErrors(nil) != nil {
		t.Error("no error has defects")
	}
}

func TestTraits(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   Traits
	}{
		{Config{Type: "length-prefixed", Bytes: 4, Offset: 3}, Traits{Window: 7, Max: DefaultMax}},
		{Config{Type: "length-prefixed", Varint: true, Pipeline: true}, Traits{Window: 10, Max: DefaultMax, Pipelined: true}},
		{Config{Type: "delimiter", Delimiter: []byte("\r\n")}, Traits{Window: 2, Max: DefaultMax}},
		{Config{Type: "http1"}, Traits{Window: 32768, Max: DefaultMax}},
		{Config{Type: "resp", Max: 5}, Traits{Window: 32768, Max: 5, Pipelined: true}},
		{Config{Type: "memcached", Head: 512}, Traits{Window: 512, Max: DefaultMax, Pipelined: true}},
		{Config{Type: "dns"}, Traits{Window: 273, Max: 65535, Pipelined: true, Keyed: true}},
		{Config{Type: "stream"}, Traits{Window: 1, Max: DefaultMax, Pipelined: true, Stream: true}},
	} {
		if got := mustNew(t, c.config).Traits(); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.config, got, c.want)
		}
	}
}

// Each type has its keys, and each key is of some type.
func TestKeys(t *testing.T) {
	for _, typ := range Types() {
		if keys := Keys(typ); len(keys) == 0 || keys[0] != "max" {
			t.Errorf("%s: %v", typ, keys)
		}
	}
	if Keys("tls") != nil {
		t.Error("an unknown type has keys")
	}
}

package framing

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// generated is a valid message on the wire, and what a scanner must make of it.
type generated struct {
	wire, data []byte
}

// property draws messages and pieces, and wants the messages back whatever the
// pieces are.
func property(t *testing.T, c Config, draw func(*rapid.T) generated, responses bool) {
	t.Helper()
	f := mustNew(t, c)
	fresh := f.Requests
	if responses {
		fresh = f.Responses
	}
	rapid.Check(t, func(rt *rapid.T) {
		defer guard(rt)
		all := rapid.SliceOfN(rapid.Custom(draw), 1, 6).Draw(rt, "messages")
		var input []byte
		for _, m := range all {
			input = append(input, m.wire...)
		}
		reqs := make([]Request, len(all))
		messages, _, err := stable(fresh, f.Traits(), input, reqs, rapid.Uint64().Draw(rt, "pieces"))
		if err != nil || len(messages) != len(all) {
			rt.Fatalf("%q: %d messages, want %d: %v", input, len(messages), len(all), err)
		}
		for i, m := range messages {
			if !bytes.Equal(m.data, all[i].data) {
				rt.Fatalf("message %d is %q, want %q", i, m.data, all[i].data)
			}
		}
		// Cut anywhere but between two messages, the input is truncated.
		cut := rapid.IntRange(1, len(input)-1).Draw(rt, "cut")
		whole := 0
		for at := 0; at < cut; whole++ {
			if at += len(all[whole].wire); at == cut {
				return
			}
		}
		messages, _, err = stable(fresh, f.Traits(), input[:cut], reqs)
		if e, ok := err.(*Error); !ok || e.Fault != Truncated || len(finished(messages)) != whole-1 {
			rt.Fatalf("%q: %d messages and error %v, want %d and truncated", input[:cut], len(messages), err, whole-1)
		}
	})
}

func TestPropertyLengthPrefixed(t *testing.T) {
	for _, c := range []Config{
		{Bytes: 1}, {Bytes: 2, Order: "little"}, {Bytes: 4}, {Bytes: 8, Order: "little", Offset: 3},
		{Bytes: 4, Strip: true}, {Bytes: 2, Strip: true, Counts: "length"}, {Bytes: 4, Offset: 1, Counts: "length"},
		{Bytes: 4, Order: "little", Offset: 5, Counts: "message"}, {Varint: true}, {Varint: true, Strip: true},
		{Varint: true, Order: "big", Offset: 2}, {Varint: true, Order: "big", Strip: true},
	} {
		c.Type = TypeLengthPrefixed
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			property(t, c, func(rt *rapid.T) generated {
				body := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(rt, "body")
				length := uint64(len(body))
				wire := bytes.Repeat([]byte{0xee}, c.Offset)
				switch c.Counts {
				case "length":
					length += uint64(c.Bytes)
				case "message":
					length += uint64(c.Offset + c.Bytes)
				}
				switch {
				case c.Varint && c.Order == "big":
					if length > 0x7f {
						wire = append(wire, byte(length>>7)|0x80)
					}
					wire = append(wire, byte(length&0x7f))
				case c.Varint:
					wire = binary.AppendUvarint(wire, length)
				case c.Order == "little":
					wire = append(wire, binary.LittleEndian.AppendUint64(nil, length)[:c.Bytes]...)
				default:
					wire = append(wire, binary.BigEndian.AppendUint64(nil, length)[8-c.Bytes:]...)
				}
				wire = append(wire, body...)
				if c.Strip {
					return generated{wire, body}
				}
				return generated{wire, wire}
			}, false)
		})
	}
}

func TestPropertyDelimiter(t *testing.T) {
	for _, end := range []string{"\n", "\r\n", "\x00", "abab", "ab"} {
		for _, strip := range []bool{false, true} {
			property(t, Config{Type: TypeDelimiter, Delimiter: []byte(end), Strip: strip}, func(rt *rapid.T) generated {
				body := rapid.StringMatching("[ab\r\n]{1,30}").Draw(rt, "body")
				wire := body + end
				body, _, _ = strings.Cut(wire, end)
				if body == "" {
					body = "c"
				}
				if wire = body + end; strip {
					return generated{[]byte(wire), []byte(body)}
				}
				return generated{[]byte(wire), []byte(wire)}
			}, false)
		}
	}
}

// value draws a value of RESP3.
func value(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(rt *rapid.T) string {
		line := rapid.StringMatching("[a-z ]{0,10}").Draw(rt, "line")
		n := rapid.IntRange(0, 3).Draw(rt, "n")
		types := "+-:,#_($!=N"
		if depth > 0 {
			types += "*%~|A"
		}
		children := func(count int) (s string) {
			for range count {
				s += value(depth-1).Draw(rt, "element")
			}
			return s
		}
		switch typ := rapid.SampledFrom([]byte(types)).Draw(rt, "type"); typ {
		case ':', '(':
			return fmt.Sprintf("%c%d\r\n", typ, n-1)
		case '#':
			return "#t\r\n"
		case '_':
			return "_\r\n"
		case '$', '!', '=':
			bulk := rapid.StringMatching("(.|\r|\n){0,50}").Draw(rt, "bulk")
			return fmt.Sprintf("%c%d\r\n%s\r\n", typ, len(bulk), bulk)
		case 'N':
			return "$-1\r\n"
		case 'A':
			return "*-1\r\n"
		case '*', '~':
			return fmt.Sprintf("%c%d\r\n%s", typ, n, children(n))
		case '%':
			return fmt.Sprintf("%%%d\r\n%s", n, children(2*n))
		case '|':
			return fmt.Sprintf("|%d\r\n%s%s", n, children(2*n), value(depth-1).Draw(rt, "value"))
		default:
			return fmt.Sprintf("%c%s\r\n", typ, line)
		}
	})
}

func TestPropertyRESP(t *testing.T) {
	property(t, Config{Type: TypeRESP}, func(rt *rapid.T) generated {
		v := []byte(value(3).Draw(rt, "value"))
		return generated{v, v}
	}, true)
	property(t, Config{Type: TypeRESP, ConnectionState: "pass"}, func(rt *rapid.T) generated {
		words := rapid.SliceOfN(rapid.SampledFrom([]string{"get", "SELECT", "CLIENT", "SETNAME", "", "a\r\nb", strings.Repeat("x", 100)}), 1, 5).Draw(rt, "words")
		wire := fmt.Sprintf("*%d\r\n", len(words))
		for _, w := range words {
			wire += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
		}
		return generated{[]byte(wire), []byte(wire)}
	}, false)
}

func TestPropertyDNS(t *testing.T) {
	for _, responses := range []bool{false, true} {
		property(t, Config{Type: TypeDNS}, func(rt *rapid.T) generated {
			msg := rapid.SliceOfN(rapid.Byte(), dnsHeader, 600).Draw(rt, "message")
			if msg[2] &^= 0x80; responses {
				msg[2] |= 0x80
			} else {
				msg[4], msg[5] = 0, 0 // no question, which could be a zone transfer
			}
			return generated{append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...), msg}
		}, responses)
	}
}

func TestPropertyMemcached(t *testing.T) {
	property(t, Config{Type: TypeMemcached}, func(rt *rapid.T) generated {
		body := rapid.StringMatching("(.|\r|\n){0,50}").Draw(rt, "body")
		wire := rapid.SampledFrom([]string{
			"get a\r\n", "gets a b c\n", fmt.Sprintf("set k 0 0 %d\r\n%s\r\n", len(body), body),
			fmt.Sprintf("ms k %d T0 q\r\n%s\r\n", len(body), body), "mn\r\n", "delete k noreply\r\n",
			fmt.Sprintf("cas k 1 2 %d 77 noreply\r\n%s\r\n", len(body), body), "stats items\r\n", "flush_all\r\n",
		}).Draw(rt, "command")
		return generated{[]byte(wire), []byte(wire)}
	}, false)
}

func TestPropertyHTTP(t *testing.T) {
	body := func(rt *rapid.T) (fields, body string) {
		body = rapid.StringMatching("(.|\r|\n){0,60}").Draw(rt, "body")
		if rapid.Bool().Draw(rt, "chunked") {
			s := ""
			for len(body) > 0 {
				n := rapid.IntRange(1, len(body)).Draw(rt, "chunk")
				s += fmt.Sprintf("%X%s\r\n%s\r\n", n, rapid.SampledFrom([]string{"", ";a=b", " ;a"}).Draw(rt, "extension"), body[:n])
				body = body[n:]
			}
			return "Transfer-Encoding: chunked\r\n", s + "0\r\n" + rapid.SampledFrom([]string{"", "X: y\r\n"}).Draw(rt, "trailer") + "\r\n"
		}
		return fmt.Sprintf("content-length:%d \r\n", len(body)), body
	}
	property(t, Config{Type: TypeHTTP1}, func(rt *rapid.T) generated {
		fields, body := body(rt)
		wire := []byte("POST /a?b HTTP/1.1\r\nHOST: x\r\n" + fields + "\r\n" + body)
		return generated{wire, wire}
	}, false)
	property(t, Config{Type: TypeHTTP1}, func(rt *rapid.T) generated {
		fields, body := body(rt)
		wire := []byte("HTTP/1.1 404 \r\n" + fields + "\r\n" + body)
		return generated{wire, wire}
	}, true)
}

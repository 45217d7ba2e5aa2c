package framing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config is a framing and its parameters, in the words of the `framing` object
// of a configuration file. A zero field means its default.
type Config struct {
	// Type is one of [Types].
	Type string
	// Max is the largest message in bytes, from 1 to [Largest]. Default 1,000,000,
	// which is the most that a Homa message holds.
	Max int64

	// Bytes is the size of the length in a length-prefixed message: 1, 2, 4 or 8,
	// or 0 with Varint.
	Bytes int
	// Varint says that the length is in groups of 7 bits with a continuation bit.
	Varint bool
	// Order is big or little: which byte, or group, of the length comes first.
	// Default big, with Varint little (as in Protocol Buffers).
	Order string
	// Offset is how many bytes precede the length, 0 to [MaxOffset].
	Offset int
	// Counts says what the length counts: `after`, the bytes behind it (the
	// default); `length`, also itself; `message`, also the bytes before it.
	Counts string

	// Delimiter ends each message, 1 to [MaxDelimiter] bytes.
	Delimiter []byte

	// Strip says that the length or delimiter is left out of messages and put
	// back at the other side; otherwise it stays a part of them. An empty message
	// cannot be stripped: Homa has none. A stripped length is all of the header.
	Strip bool
	// Pipeline says that a server takes further requests, of length-prefixed or
	// delimiter, while it works on one, and answers in their order.
	Pipeline bool

	// Head bounds what must be held at once before a message, or a part of it, is
	// understood: the header block of HTTP, a line of resp and memcached; 512 to
	// 1 MiB. Default 32 KiB.
	Head int
	// Depth bounds the nesting of resp, 1 to 128. Default 32.
	Depth int
	// ConnectionState says what becomes of commands of resp that change what later
	// commands of their connection mean (SELECT, MULTI, AUTH): `refuse` (the
	// default) or `pass`, which is right only where each client has a connection
	// to the server of its own.
	ConnectionState string
}

// The types of framing.
const (
	TypeLengthPrefixed = "length-prefixed"
	TypeDelimiter      = "delimiter"
	TypeHTTP1          = "http1"
	TypeRESP           = "resp"
	TypeMemcached      = "memcached"
	TypeDNS            = "dns"
	TypeStream         = "stream"
)

// Bounds of [Config] that are ours.
const (
	// DefaultMax is Homa's own limit.
	DefaultMax = 1_000_000
	// Largest is the largest Max: a message may have to be held whole.
	Largest      = 1 << 30
	MaxOffset    = 1024
	MaxDelimiter = 64
	minHead      = 512
	maxHead      = 1 << 20
	defaultHead  = 32 << 10
	maxDepth     = 128
	defaultDepth = 32
)

// Types returns the types of framing.
func Types() []string {
	return []string{TypeLengthPrefixed, TypeDelimiter, TypeHTTP1, TypeRESP, TypeMemcached, TypeDNS, TypeStream}
}

// Keys returns the keys, beside `type`, that a framing of this type may have; nil
// when there is no such type. `bytes: varint` stands for Varint, and `keep:
// false` for Strip.
func Keys(typ string) []string {
	switch typ {
	case TypeLengthPrefixed:
		return []string{"max", "bytes", "order", "offset", "counts", "keep", "pipeline"}
	case TypeDelimiter:
		return []string{"max", "delimiter", "keep", "pipeline"}
	case TypeHTTP1, TypeMemcached:
		return []string{"max", "head"}
	case TypeRESP:
		return []string{"max", "head", "depth", "connection_state"}
	case TypeDNS, TypeStream:
		return []string{"max"}
	}
	return nil
}

// Words reports whether the protocol of a type can tell a client that its request
// has failed.
func Words(typ string) bool {
	switch typ {
	case TypeHTTP1, TypeRESP, TypeMemcached, TypeDNS:
		return true
	}
	return false
}

// KeyError is what is wrong with one key of the configuration.
type KeyError struct {
	// Key is the key in the `framing` object, such as "bytes".
	Key string
	// Msg goes on a sentence that begins with the key.
	Msg string
}

// Error returns the key and the message.
func (e *KeyError) Error() string { return "framing: " + e.Key + ": " + e.Msg }

// New returns the framing that c describes. The error joins one [*KeyError] for
// each defect; [KeyErrors] takes it apart.
func New(c Config) (Framing, error) {
	if Keys(c.Type) == nil {
		return nil, &KeyError{"type", fmt.Sprintf("%q is not one of %s", c.Type, strings.Join(Types(), ", "))}
	}
	var k checker
	k.foreign(&c)
	if c.Max == 0 {
		c.Max = DefaultMax
	}
	k.between("max", c.Max, 1, Largest)
	switch c.Type {
	case TypeLengthPrefixed:
		k.lengthPrefixed(&c)
	case TypeDelimiter:
		if len(c.Delimiter) == 0 || len(c.Delimiter) > MaxDelimiter {
			k.errorf("delimiter", "has %d bytes, which is not in 1 to %d", len(c.Delimiter), MaxDelimiter)
		} else if !c.Strip && int64(len(c.Delimiter)) > c.Max {
			k.errorf("max", "%d is less than the delimiter", c.Max)
		}
	case TypeHTTP1, TypeRESP, TypeMemcached:
		if c.Head == 0 {
			c.Head = defaultHead
		}
		k.between("head", int64(c.Head), minHead, maxHead)
	case TypeDNS:
		if c.Max < dnsHeader {
			k.errorf("max", "%d is less than the %d bytes of a DNS header", c.Max, dnsHeader)
		}
	case TypeStream:
		if c.Max <= ChunkHeaderLen {
			k.errorf("max", "%d leaves no room behind the %d bytes of a header", c.Max, ChunkHeaderLen)
		}
	}
	if c.Type == TypeRESP {
		if c.Depth == 0 {
			c.Depth = defaultDepth
		}
		k.between("depth", int64(c.Depth), 1, maxDepth)
		k.oneOf("connection_state", &c.ConnectionState, "refuse", "pass")
	}
	if len(k.errs) > 0 {
		return nil, errors.Join(k.errs...)
	}
	switch c.Type {
	case TypeLengthPrefixed:
		return newLengthPrefixed(c), nil
	case TypeDelimiter:
		return newDelimiter(c), nil
	case TypeHTTP1:
		return newHTTP1(c), nil
	case TypeRESP:
		return newRESP(c), nil
	case TypeMemcached:
		return newMemcached(c), nil
	case TypeDNS:
		return newDNS(c), nil
	}
	return newStream(c), nil
}

// KeyErrors returns the defects that an error of [New] joins.
func KeyErrors(err error) []*KeyError {
	var one *KeyError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*KeyError
		for _, err := range joined.Unwrap() {
			if errors.As(err, &one) {
				all = append(all, one)
			}
		}
		return all
	}
	if errors.As(err, &one) {
		return []*KeyError{one}
	}
	return nil
}

// checker collects defects.
type checker struct {
	errs []error
}

func (k *checker) errorf(key, format string, args ...any) {
	k.errs = append(k.errs, &KeyError{key, fmt.Sprintf(format, args...)})
}

func (k *checker) between(key string, v, lo, hi int64) {
	if v < lo || v > hi {
		k.errorf(key, "%d is not in %d to %d", v, lo, hi)
	}
}

// oneOf checks a word; the first of the known ones is the default.
func (k *checker) oneOf(key string, v *string, known ...string) {
	if *v == "" {
		*v = known[0]
	}
	if !slices.Contains(known, *v) {
		k.errorf(key, "%q is not one of %s", *v, strings.Join(known, ", "))
	}
}

// foreign reports parameters that belong to another type.
func (k *checker) foreign(c *Config) {
	known := Keys(c.Type)
	for _, p := range []struct {
		key   string
		given bool
	}{
		{"bytes", c.Bytes != 0 || c.Varint},
		{"order", c.Order != ""},
		{"offset", c.Offset != 0},
		{"counts", c.Counts != ""},
		{"delimiter", len(c.Delimiter) != 0},
		{"keep", c.Strip},
		{"pipeline", c.Pipeline},
		{"head", c.Head != 0},
		{"depth", c.Depth != 0},
		{"connection_state", c.ConnectionState != ""},
	} {
		if p.given && !slices.Contains(known, p.key) {
			k.errorf(p.key, "messages of type %s do not have it", c.Type)
		}
	}
}

func (k *checker) lengthPrefixed(c *Config) {
	switch {
	case c.Varint && c.Bytes != 0:
		k.errorf("bytes", "is either varint or a number")
	case !c.Varint && c.Bytes != 1 && c.Bytes != 2 && c.Bytes != 4 && c.Bytes != 8:
		k.errorf("bytes", "%d is not one of 1, 2, 4, 8, varint", c.Bytes)
	}
	if c.Varint {
		k.oneOf("order", &c.Order, "little", "big")
	} else {
		k.oneOf("order", &c.Order, "big", "little")
	}
	k.between("offset", int64(c.Offset), 0, MaxOffset)
	k.oneOf("counts", &c.Counts, "after", "length", "message")
	switch {
	case c.Strip && c.Offset != 0:
		k.errorf("keep", "false would lose the %d bytes before the length", c.Offset)
	case c.Strip && c.Varint && c.Counts != "after":
		k.errorf("counts", "%s is ambiguous for a varint that is not kept", c.Counts)
	}
	if !c.Strip && c.Max < int64(c.Offset+max(c.Bytes, 1)) {
		k.errorf("max", "%d is less than the header of a message", c.Max)
	}
}

package config

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/tougw/tougw/framing"
)

// maxHomaMessage is the longest message of Homa in bytes.
const maxHomaMessage = framing.DefaultMax

// framing reads how messages are found in a byte stream. The meaning of the
// keys is the framing package's; here they get their places in the file.
func (p *parser) framing(r *rawFraming) framing.Config {
	if !r.ok() {
		return framing.Config{}
	}
	types := framing.Types()
	typ := enum(p.decoder, &r.typ, "", types...)
	if typ == "" {
		if !r.typ.given() {
			p.missing(&r.at, "type", "one of "+strings.Join(types, ", "))
		}
		return framing.Config{}
	}
	keys := r.keys()
	for _, k := range keys {
		known := framing.Keys(typ)
		if name := strings.TrimSuffix(k.key, "_hex"); k.into.given() && !slices.Contains(known, name) {
			p.errorf(&k.into.at, "messages of type %s do not have it; they have %s", typ, strings.Join(known, ", "))
		}
	}
	c := framing.Config{
		Type:     typ,
		Max:      p.size(&r.max, maxHomaMessage, 1, maxHomaMessage),
		Order:    p.optionalText(&r.order, "big or little"),
		Offset:   p.integer(&r.offset, 0, 0, framing.MaxOffset),
		Counts:   p.optionalText(&r.counts, "one of after, length, message"),
		Strip:    !p.boolean(&r.keep, true),
		Pipeline: p.boolean(&r.pipeline, false),
		// The ranges are the package's; here they keep out 0, which is its default.
		Head:            int(p.size(&r.head, 0, 512, 1<<20)),
		Depth:           p.integer(&r.depth, 0, 1, 128),
		ConnectionState: p.optionalText(&r.connectionState, "refuse or pass"),
	}
	p.lengthBytes(r, &c)
	p.delimiter(r, &c)
	_, err := framing.New(c)
	for _, e := range framing.KeyErrors(err) {
		i := slices.IndexFunc(keys, func(k framingKey) bool { return k.key == e.Key && k.into.given() })
		switch {
		case i < 0 && !p.faulty(r, e.Key): // said of a default, or of a key that is missing
			p.report(r.node, r.child(e.Key), "%s", e.Msg)
		case i >= 0 && keys[i].into.ok():
			p.errorf(&keys[i].into.at, "%s", e.Msg)
		}
	}
	return c
}

// framingKey is a key of a framing beside its type.
type framingKey struct {
	key  string
	into *scalar
}

func (r *rawFraming) keys() []framingKey {
	var keys []framingKey
	for _, f := range r.fields() {
		if s := f.into.(*scalar); s != &r.typ {
			keys = append(keys, framingKey{f.key, s})
		}
	}
	return keys
}

// faulty reports whether what is said of an absent key follows from an error
// that was reported already.
func (p *parser) faulty(r *rawFraming, key string) bool {
	switch key {
	case "bytes":
		return true // lengthBytes says that it is missing
	case "delimiter":
		return true // delimiter does
	}
	return slices.ContainsFunc(r.keys(), func(k framingKey) bool { return k.into.given() && !k.into.ok() })
}

// optionalText returns a text, or "" for the default.
func (p *parser) optionalText(s *scalar, what string) string {
	v, _ := p.text(s, what)
	return v
}

// lengthBytes reads the size of a length: a number or varint.
func (p *parser) lengthBytes(r *rawFraming, c *framing.Config) {
	s := &r.bytes
	switch {
	case c.Type != framing.TypeLengthPrefixed:
	case !s.given():
		p.missing(&r.at, "bytes", "the size of the length: 1, 2, 4, 8 or varint")
	case s.ok() && s.node.ShortTag() == "!!str" && s.node.Value == "varint":
		c.Varint = true
	case s.ok() && !isInteger(s):
		p.errorf(&s.at, "wants 1, 2, 4, 8 or varint, not %s", describe(s.node))
	default:
		c.Bytes = p.integer(s, 0, 1, 8)
	}
}

// delimiter reads what ends a message, as a text or in hexadecimal.
func (p *parser) delimiter(r *rawFraming, c *framing.Config) {
	if c.Type != framing.TypeDelimiter {
		return
	}
	text, raw := &r.delimiter, &r.delimiterHex
	switch {
	case text.given() && raw.given():
		p.errorf(&raw.at, "stands for the same as delimiter; remove one of them")
		c.Delimiter = []byte{0} // stands for both, so that nothing else is said of them
	case text.given():
		c.Delimiter = []byte(p.optionalText(text, `a text such as "\r\n"`))
	case raw.given():
		v, ok := p.word(raw, `bytes in hexadecimal such as "0d0a"`)
		b, err := hex.DecodeString(v)
		switch {
		case !ok:
		case err != nil:
			p.errorf(&raw.at, "%s is not in hexadecimal, two digits a byte, such as \"0d0a\"", quote(v))
		case len(b) > framing.MaxDelimiter:
			p.errorf(&raw.at, "has %d bytes, more than %d", len(b), framing.MaxDelimiter)
		}
		c.Delimiter = b
	default:
		p.missing(&r.at, "delimiter", `what ends a message, such as "\n"; delimiter_hex has it in hexadecimal`)
	}
}

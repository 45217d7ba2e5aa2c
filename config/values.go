package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/pki"
)

// The functions of this file turn one scalar into one value. Each returns the
// default (or a zero value) for a key that is absent or wrong, and reports what
// is wrong with it.

// text returns a scalar that must be text; what names what is wanted.
func (d *decoder) text(s *scalar, what string) (string, bool) {
	if !s.ok() {
		return "", false
	}
	if s.node.ShortTag() != "!!str" {
		d.errorf(&s.at, "wants %s, not %s", what, describe(s.node))
		return "", false
	}
	if s.node.Value == "" {
		d.errorf(&s.at, "is empty; give it %s or remove the key", what)
		return "", false
	}
	return s.node.Value, true
}

// word returns a scalar that may look like a number.
func (d *decoder) word(s *scalar, what string) (string, bool) {
	if s.ok() {
		switch s.node.ShortTag() {
		case "!!int", "!!float":
			return s.node.Value, true
		}
	}
	return d.text(s, what)
}

// name returns an identity or the name of a part of the file.
func (d *decoder) name(s *scalar) string {
	v, ok := d.text(s, "a name")
	if !ok {
		return ""
	}
	if err := pki.CheckName(v); err != nil {
		d.errorf(&s.at, "%s %v", quote(v), err)
		return ""
	}
	return v
}

// boolean returns true or false.
func (d *decoder) boolean(s *scalar, def bool) bool {
	if !s.ok() {
		return def
	}
	if s.node.ShortTag() != "!!bool" {
		d.errorf(&s.at, "wants true or false, not %s", describe(s.node))
		return def
	}
	return strings.EqualFold(s.node.Value, "true")
}

// enum returns one of the known words.
func enum[T ~string](d *decoder, s *scalar, def T, known ...T) T {
	words := make([]string, len(known))
	for i, k := range known {
		words[i] = string(k)
	}
	v, ok := d.text(s, "one of "+strings.Join(words, ", "))
	if !ok {
		return def
	}
	for _, k := range known {
		if v == string(k) {
			return k
		}
	}
	d.errorf(&s.at, "%s is not one of %s%s", quote(v), strings.Join(words, ", "), didYouMean(v, words))
	return def
}

// integer returns a whole number in decimal or with 0x in hexadecimal.
func (d *decoder) integer(s *scalar, def, lo, hi int) int {
	if !s.ok() {
		return def
	}
	if !isInteger(s) {
		d.errorf(&s.at, "wants a whole number, not %s", describe(s.node))
		return def
	}
	return d.number(s, def, lo, hi)
}

// isInteger reports whether s is a whole number of any size. YAML takes one
// that has too many digits for a fraction.
func isInteger(s *scalar) bool {
	switch s.node.ShortTag() {
	case "!!int":
		return true
	case "!!float":
		return strings.Trim(s.node.Value, "+-0123456789") == ""
	}
	return false
}

func (d *decoder) number(s *scalar, def, lo, hi int) int {
	v := s.node.Value
	// 017 is octal in YAML 1.1 and decimal in 1.2.
	if digits := strings.TrimLeft(v, "+-"); len(digits) > 1 && digits[0] == '0' && isDigit(digits[1]) {
		d.errorf(&s.at, "%s has a leading zero, which means octal to some; write it without", unquoted(v))
		return def
	}
	n, err := strconv.ParseInt(v, 0, 64)
	if err != nil || n < int64(lo) || n > int64(hi) {
		d.errorf(&s.at, "%s is not in %d to %d", unquoted(v), lo, hi)
		return def
	}
	return int(n)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// autoInteger is integer, with 0 for the word auto, which is the default.
func (d *decoder) autoInteger(s *scalar, lo, hi int) int {
	if !s.ok() || s.node.ShortTag() == "!!str" && s.node.Value == "auto" {
		return 0
	}
	if !isInteger(s) {
		hint := ""
		if s.node.ShortTag() == "!!str" {
			hint = didYouMean(s.node.Value, []string{"auto"})
		}
		d.errorf(&s.at, "wants auto or a whole number, not %s%s", describe(s.node), hint)
		return 0
	}
	return d.number(s, 0, lo, hi)
}

// duration returns a time span such as 15s or 1h30m.
func (d *decoder) duration(s *scalar, def, lo, hi time.Duration) time.Duration {
	if !s.ok() {
		return def
	}
	v := s.node.Value
	switch s.node.ShortTag() {
	case "!!int", "!!float":
		if v != "0" {
			d.errorf(&s.at, "wants a duration with its unit, such as %ss, not %s", unquoted(v), describe(s.node))
			return def
		}
	default:
		var ok bool
		if v, ok = d.text(s, "a duration such as 15s"); !ok {
			return def
		}
	}
	t, err := time.ParseDuration(v)
	if err != nil {
		d.errorf(&s.at, "%s is not a duration such as 500ms, 15s or 1h30m", quote(v))
		return def
	}
	if t < lo || t > hi {
		d.errorf(&s.at, "%s is not in %s to %s", v, short(lo), short(hi))
		return def
	}
	return t
}

// durationOrOff is duration, with 0 beside the range for off.
func (d *decoder) durationOrOff(s *scalar, def, lo, hi time.Duration) time.Duration {
	t := d.duration(s, def, 0, hi)
	if s.ok() && t != 0 && t < lo {
		d.errorf(&s.at, "%s is not in %s to %s, nor 0s for off", s.node.Value, short(lo), short(hi))
		return def
	}
	return t
}

// wholeSeconds reports a duration that the kernel cannot keep.
func (d *decoder) wholeSeconds(s *scalar, t time.Duration) {
	if s.ok() && t%time.Second != 0 {
		d.errorf(&s.at, "%s is not in whole seconds", s.node.Value)
	}
}

// short is Duration.String without the units that are zero: 2m, not 2m0s.
func short(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// addrPort returns an address with a port, both of which are given.
func (d *decoder) addrPort(s *scalar) (netip.AddrPort, bool) {
	v, ok := d.text(s, `an address and port such as "192.0.2.1:443"`)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap, msg := parseAddrPort(v, false)
	if msg != "" {
		d.errorf(&s.at, "%s %s", quote(v), msg)
		return netip.AddrPort{}, false
	}
	return ap, true
}

// parseAddrPort returns what is wrong with s as a text, or "". Without an
// address (":4100"), which bare allows, the address of the result is invalid.
func parseAddrPort(s string, bare bool) (netip.AddrPort, string) {
	i := strings.LastIndexByte(s, ':')
	host := s
	if i >= 0 {
		host = s[:i]
	}
	// An IPv6 address has colons of its own, so that without brackets its last
	// group would pass for the port.
	if addr, err := netip.ParseAddr(s); err == nil && addr.Is6() {
		return netip.AddrPort{}, fmt.Sprintf("has no port; write \"[%s]:PORT\"", s)
	}
	if i < 0 {
		return netip.AddrPort{}, fmt.Sprintf("has no port; write \"%s:PORT\"", host)
	}
	port, err := parsePort(s[i+1:])
	if err != nil {
		return netip.AddrPort{}, err.Error()
	}
	if host == "" {
		if bare {
			return netip.AddrPortFrom(netip.Addr{}, port), ""
		}
		return netip.AddrPort{}, fmt.Sprintf("has no address; write \"0.0.0.0:%d\" or \"[::]:%d\"", port, port)
	}
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Sprintf("is not at an IP address (names are not resolved): %s is not one", quote(host))
	case addr.Is6() && !bracketed:
		return netip.AddrPort{}, fmt.Sprintf("needs brackets; write \"[%s]:%d\"", host, port)
	case addr.Is4() && host != addr.String():
		return netip.AddrPort{}, fmt.Sprintf("has brackets around an IPv4 address; write \"%s:%d\"", addr, port)
	case addr.Is4In6():
		return netip.AddrPort{}, fmt.Sprintf("is an IPv4 address in IPv6 form; write \"%s:%d\"", addr.Unmap(), port)
	}
	return netip.AddrPortFrom(addr, port), ""
}

// prefix returns an address prefix. With host set, the address may have bits
// below the prefix length; otherwise that is an error.
func (d *decoder) prefix(s *scalar, host bool) (netip.Prefix, bool) {
	v, ok := d.text(s, `a prefix such as "192.0.2.0/24"`)
	if !ok {
		return netip.Prefix{}, false
	}
	if addr, err := netip.ParseAddr(v); err == nil {
		d.errorf(&s.at, "%s has no prefix length; for this one address write \"%s/%d\"", quote(v), addr.WithZone(""), addr.BitLen())
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(v)
	if err != nil {
		d.errorf(&s.at, "%s is not a prefix such as \"192.0.2.0/24\": %s", quote(v), prefixFault(v))
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() {
		d.errorf(&s.at, "%s is an IPv4 prefix in IPv6 form; write it as IPv4", quote(v))
		return netip.Prefix{}, false
	}
	if !host && p != p.Masked() {
		d.errorf(&s.at, "%s has bits set after the first %d; did you mean \"%s\"?", quote(v), p.Bits(), p.Masked())
		return netip.Prefix{}, false
	}
	return p, true
}

// prefixFault says which half of a prefix is wrong.
func prefixFault(v string) string {
	host, bits, ok := strings.Cut(v, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil || !ok {
		return quote(host) + " is not an IP address"
	}
	return fmt.Sprintf("the length %s is not in 0 to %d", quote(bits), addr.BitLen())
}

// ports returns the port ranges of a list.
func (d *decoder) ports(l *scalars) []PortRange {
	var ranges []PortRange
	for i := range l.items {
		s := &l.items[i]
		v, ok := d.word(s, `a port or range such as "8000-8999"`)
		if !ok {
			continue
		}
		r, err := ParsePortRange(v)
		if err != nil {
			d.errorf(&s.at, "%s %v", quote(v), err)
			continue
		}
		ranges = append(ranges, r)
	}
	return ranges
}

// prefixes returns the prefixes of a list, none of which is there twice.
func (d *decoder) prefixes(l *scalars) []netip.Prefix {
	var prefixes []netip.Prefix
	first := make(map[netip.Prefix]string)
	for i := range l.items {
		s := &l.items[i]
		p, ok := d.prefix(s, false)
		if !ok || d.twice(first, p, s) {
			continue
		}
		prefixes = append(prefixes, p)
	}
	return prefixes
}

// twice reports an entry of a list that is there already.
func (d *decoder) twice(first map[netip.Prefix]string, p netip.Prefix, s *scalar) bool {
	if path, dup := first[p]; dup {
		d.errorf(&s.at, "%s is there twice; it is %s already", quote(p.String()), path)
		return true
	}
	first[p] = s.path
	return false
}

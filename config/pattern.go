package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxPattern bounds a pattern in bytes: the longest DNS name.
const maxPattern = 253

// Pattern is a pattern for the names that peers prove. '*' stands for any run
// of characters, also an empty one and one with dots, and '?' for any single
// character. Case does not count, as in DNS. The zero value matches nothing.
type Pattern struct {
	s string // in lower case
}

// ParsePattern reads a pattern: 1 to 253 letters, digits, '-', '_', '.', '*'
// and '?'.
func ParsePattern(s string) (Pattern, error) {
	if s == "" {
		return Pattern{}, errors.New("is empty")
	}
	if len(s) > maxPattern {
		return Pattern{}, fmt.Errorf("has %d characters, more than %d", len(s), maxPattern)
	}
	for i := range len(s) {
		if c := s[i]; !isNameByte(c) && c != '*' && c != '?' {
			return Pattern{}, fmt.Errorf("has %s: only letters, digits, '-', '_', '.', '*' and '?' can be in it", quoteChar(s[i:]))
		}
	}
	return Pattern{strings.ToLower(s)}, nil
}

// Match reports whether the pattern covers name.
func (p Pattern) Match(name string) bool {
	// Greedy with one point of return: linear in practice, and at worst
	// len(pattern)*len(name), both of which are bounded.
	pat := p.s
	if pat == "" || name == "" {
		return false
	}
	i, j := 0, 0        // positions in pat and name
	star, mark := -1, 0 // last '*' in pat, and what it has taken of name
	for j < len(name) {
		switch {
		case i < len(pat) && pat[i] == '*':
			star, mark = i, j
			i++
		case i < len(pat) && (pat[i] == '?' || pat[i] == lower(name[j])):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(pat) && pat[i] == '*' {
		i++
	}
	return i == len(pat)
}

// String returns the pattern in lower case.
func (p Pattern) String() string { return p.s }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// PortRange is a range of ports, both ends included: 1 <= First <= Last.
type PortRange struct {
	First, Last uint16
}

// Contains reports whether port is in the range.
func (r PortRange) Contains(port uint16) bool {
	return r.First <= port && port <= r.Last
}

// String returns "FIRST-LAST", or "PORT" for a single one.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// ParsePortRange reads "PORT" or "FIRST-LAST", ports being 1 to 65535.
func ParsePortRange(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, err := parsePort(first)
	if err != nil {
		return PortRange{}, err
	}
	b, err := parsePort(last)
	if err != nil {
		return PortRange{}, err
	}
	if a > b {
		return PortRange{}, fmt.Errorf("is empty: %d is more than %d", a, b)
	}
	return PortRange{a, b}, nil
}

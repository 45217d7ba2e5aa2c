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
// character. Case does not count, as in DNS. The zero value is no pattern.
type Pattern struct {
	s string // in lower case
}

// ParsePattern reads a pattern: 1 to 253 letters, digits, '-', '_', '.', '*'
// and '?'.
func ParsePattern(s string) (Pattern, error) {
	if s == "" {
		return Pattern{}, errors.New("is empty")
	}
	for i := range len(s) {
		if c := s[i]; !isNameByte(c) && c != '*' && c != '?' {
			return Pattern{}, fmt.Errorf("has %s: only letters, digits, '-', '_', '.', '*' and '?' can be in it", quoteChar(s[i:]))
		}
	}
	if len(s) > maxPattern {
		return Pattern{}, fmt.Errorf("has %d characters, more than %d", len(s), maxPattern)
	}
	return Pattern{strings.ToLower(s)}, nil
}

// String returns the pattern in lower case.
func (p Pattern) String() string { return p.s }

// PortRange is a range of ports, both ends included: 1 <= First <= Last.
type PortRange struct {
	First, Last uint16
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

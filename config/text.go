package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxQuoted bounds a value of the file that is repeated in a message.
const maxQuoted = 60

// quote returns s in double quotes, with everything escaped that is not plain
// printable text, and cut when it is long.
func quote(s string) string {
	if len(s) <= maxQuoted {
		return strconv.Quote(s)
	}
	cut := maxQuoted
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "..."
}

// quoteChar quotes the first character of s.
func quoteChar(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strconv.Quote(s[:n])
}

// isNameByte reports whether c can be part of a name, dots included.
func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '_' || c == '.'
}

// parsePort reads a port from 1 to 65535 in plain decimal.
func parsePort(s string) (uint16, error) {
	if s == "" {
		return 0, errors.New("has no port")
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("has the port %s, which is not a number", quote(s))
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("has the port %s, which is not in 1 to 65535", unquoted(s))
	}
	return uint16(n), nil
}

// didYouMean returns `; did you mean "x"?` for the one of known that is closest
// to s, or "" when none is close.
func didYouMean(s string, known []string) string {
	// A third of the letters may be wrong, and one at least; more distant words
	// are guesses that mislead.
	limit := max(1, len(s)/3)
	if len(s) > maxQuoted {
		return ""
	}
	best := ""
	for _, k := range known {
		if d := distance(strings.ToLower(s), k); d <= limit {
			best, limit = k, d-1
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + quote(best) + "?"
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

// unquoted is quote without the quotes, for numbers and the like.
func unquoted(s string) string {
	return strings.ReplaceAll(quote(s), `"`, "")
}

// printable escapes what does not belong into one line on a terminal. Values of
// the file are quoted before; this is for the rest, such as names of files.
func printable(s string) string {
	clean := func(r rune) bool { return !strconv.IsPrint(r) }
	if strings.IndexFunc(s, clean) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

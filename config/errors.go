package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxShown is how many errors of one file are printed. More than that is one
// mistake with many consequences, or no configuration file at all.
const maxShown = 50

// Error is one defect of a configuration file.
type Error struct {
	// File is the path of the file as it was given to Load or Parse.
	File string
	// Line and Col are where the defect is, from 1; Col counts characters. Both
	// are zero when the file as a whole is meant.
	Line, Col int
	// Key is the dotted path of the key, such as peers[0].endpoints[1]. Empty
	// when the file as a whole is meant.
	Key string
	// Msg says what is wrong, in one line of printable text.
	Msg string
}

// Error returns "FILE:LINE:COL: KEY: MSG", without the parts that are empty.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Col)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key)
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Errors lists all defects of one file, sorted by position.
type Errors []*Error

// Error returns one line per defect, without a trailing newline. It shows the
// first 50 and says how many there are beyond.
func (e Errors) Error() string {
	var b strings.Builder
	for i, err := range e {
		if i == maxShown {
			fmt.Fprintf(&b, "%s: %d more errors are not shown\n", err.File, len(e)-maxShown)
			break
		}
		b.WriteString(err.Error())
		b.WriteByte('\n')
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Unwrap returns the defects, for errors.As.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// sort orders by position, then by key and text, so that a file always gives
// the same output.
func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Key, b.Key),
			cmp.Compare(a.Msg, b.Msg),
		)
	})
}

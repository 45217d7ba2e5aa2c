package pki

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of RFC 1035 section 2.3.4, in bytes.
const (
	maxName  = 253
	maxLabel = 63
)

// CheckName says why name cannot be an identity, or returns nil. An identity is
// a DNS name as crypto/x509 verifies it, in its one canonical spelling: labels
// of lower-case letters, digits, '-' and '_' with dots between them and none at
// the end, the last label not all digits (that would be an IP address). Lower
// case only, since DNS names do not tell case apart but file names do.
func CheckName(name string) error {
	if name == "" {
		return errors.New("is empty")
	}
	if len(name) > maxName {
		return fmt.Errorf("has %d bytes, more than %d", len(name), maxName)
	}
	digits := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return errors.New("has a dot at its start or end, or two in a row")
		}
		if len(label) > maxLabel {
			return fmt.Errorf("has a label of %d bytes, more than %d", len(label), maxLabel)
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("has the label %q, which starts or ends with '-'", label)
		}
		digits = true
		for _, c := range label {
			switch {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', c == '-', c == '_':
				digits = false
			case 'A' <= c && c <= 'Z':
				return errors.New("has upper-case letters: names are in lower case")
			default:
				return fmt.Errorf("has %q: only letters, digits, '-', '_' and '.' can be in a name", c)
			}
		}
	}
	if digits {
		return errors.New("ends in a number, like an IP address: names are DNS names")
	}
	return nil
}

package pki

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Sizes of a pre-shared key in bytes. RFC 4279 section 5.3 wants 64 to be
// supported; below 16 a key can be searched.
const (
	pskSize    = 32
	minPSKSize = 16
	maxPSKSize = 64
)

// pskExt is how the file of a pre-shared key ends; before it is the identity.
const pskExt = ".psk"

// maxPSKs bounds the keys of one folder.
const maxPSKs = 65536

// PSK makes a pre-shared key of 32 random bytes for the identity name:
// NAME.psk, with mode 0600, in the folder out, which is made if it is missing.
// Nothing is overwritten (fs.ErrExist). It returns the path of the file, whose
// format is described at [LoadPSK].
func PSK(name, out string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("name %q %w", name, err)
	}
	key := make([]byte, pskSize)
	rand.Read(key) // never fails
	path := filepath.Join(out, name+pskExt)
	line := hex.EncodeToString(key) + "\n"
	if err := writeFiles(output{path, 0o600, []byte(line)}); err != nil {
		return "", err
	}
	return path, nil
}

// LoadPSK loads a pre-shared key. The file has one line with the key in
// hexadecimal digits, 16 to 64 bytes, and is accessible to its owner alone.
func LoadPSK(file string) ([]byte, error) {
	b, err := readFile(file, true)
	if err != nil {
		return nil, err
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	key, err := hex.DecodeString(line)
	if err != nil {
		// The text of err would repeat a part of the key.
		return nil, fmt.Errorf("%s is not one line of hexadecimal digits", file)
	}
	if len(key) < minPSKSize || len(key) > maxPSKSize {
		return nil, fmt.Errorf("%s has a key of %d bytes; %d to %d are possible", file, len(key), minPSKSize, maxPSKSize)
	}
	return key, nil
}

// LoadPSKDir loads the keys of all files NAME.psk of a folder, by NAME. Each is
// the key of one identity only: two files with the same key are an error, since
// either could pass for the other. Files with other endings are not looked at.
// At least one and at most 65536 keys are there. All defects are reported, as
// an error that joins them.
func LoadPSKDir(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	keys := make(map[string][]byte)
	owner := make(map[string]string)
	var errs joined
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), pskExt)
		// Hidden files are those of a writer that is not done, or of an editor.
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := CheckName(name); err != nil {
			errs = append(errs, fmt.Errorf("%s: name %q %w", path, name, err))
			continue
		}
		key, err := LoadPSK(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if other, dup := owner[string(key)]; dup {
			errs = append(errs, fmt.Errorf("%s has the same key as %s: a key proves one name", path, other))
			continue
		}
		if len(keys) == maxPSKs {
			return nil, fmt.Errorf("%s has more than %d keys", dir, maxPSKs)
		}
		keys[name], owner[string(key)] = key, path
	}
	if len(errs) > 0 {
		return nil, errs
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no file NAME%s", dir, pskExt)
	}
	return keys, nil
}

// joined is errors.Join on one line.
type joined []error

func (j joined) Error() string {
	parts := make([]string, len(j))
	for i, err := range j {
		parts[i] = err.Error()
	}
	return strings.Join(parts, "; ")
}

func (j joined) Unwrap() []error { return j }

package tun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	procNet     = "/proc/sys/net/"
	rpFilterAll = "ipv4/conf/all/rp_filter"
)

// Values of rp_filter (kernel, Documentation/networking/ip-sysctl.rst). The
// larger of a device's own and that of "all" is in force on the device.
const (
	rpStrict = 1
	rpLoose  = 2
)

// sysctl is a setting below /proc/sys/net that was changed.
type sysctl struct {
	Path     string
	Old, New string
}

// readSysctl gives a setting of the current thread's network namespace.
func readSysctl(path string) (string, error) {
	b, err := os.ReadFile(procNet + path)
	return strings.TrimSpace(string(b)), err
}

func writeSysctl(path, value string) error {
	return os.WriteFile(procNet+path, []byte(value), 0)
}

// restore sets s back, unless somebody changed it since. f is its file, opened
// in the right namespace.
func (s sysctl) restore(f *os.File) error {
	var b [64]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("tun: sysctl %s: %w", s.Path, err)
	}
	if strings.TrimSpace(string(b[:n])) != s.New {
		return nil
	}
	if err := writeAt(f, s.Old); err != nil {
		return fmt.Errorf("tun: sysctl %s: %w", s.Path, err)
	}
	return nil
}

// strictInterface gives the name of an interface, other than the device
// itself, that filters arriving packets strictly by their reverse path, or "".
func strictInterface(device string) (string, error) {
	all, err := rpFilter("all")
	if err != nil {
		return "", err
	}
	paths, err := filepath.Glob(procNet + "ipv4/conf/*/rp_filter")
	if err != nil {
		return "", fmt.Errorf("tun: rp_filter: %w", err)
	}
	for _, p := range paths {
		name := filepath.Base(filepath.Dir(p))
		if name == "all" || name == "default" || name == "lo" || name == device {
			continue
		}
		own, err := rpFilter(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the interface went away
		}
		if err != nil {
			return "", err
		}
		if max(all, own) == rpStrict {
			return name, nil
		}
	}
	return "", nil
}

func rpFilter(name string) (int, error) {
	s, err := readSysctl("ipv4/conf/" + name + "/rp_filter")
	if err == nil {
		var n int
		if n, err = strconv.Atoi(s); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("tun: rp_filter of %s: %w", name, err)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"time"
)

// microPackages are the packages of the path that packets take.
var microPackages = []string{"./dtls", "./gue", "./internal/udp", "./tcpip", "./tun", "./tunnel", "./bridge"}

// microLimit bounds all of them, with their compilation.
const microLimit = 10 * time.Minute

// microResult is one benchmark of a package.
type microResult struct {
	Package string `json:"package"`
	Name    string `json:"name"`
	Runs    int    `json:"runs"`
	// Values by unit, as `go test -bench` names it: ns/op, MB/s, allocs/op.
	Values map[string]float64 `json:"values"`
}

// runMicro runs the benchmarks of the packages. What was measured comes back
// also with an error.
func runMicro(ctx context.Context) ([]microResult, error) {
	ctx, cancel := context.WithTimeout(ctx, microLimit)
	defer cancel()
	args := append([]string{"test", "-run", "^$", "-bench", ".", "-benchtime", "200ms", "-benchmem"}, microPackages...)
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	results := parseMicro(string(out))
	if err == nil && len(results) == 0 {
		err = errors.New("no benchmarks")
	}
	if err != nil {
		err = fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out[max(0, len(out)-300):])
	}
	return results, err
}

// parseMicro reads the output of `go test -bench`.
func parseMicro(out string) (results []microResult) {
	pkg := ""
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "pkg: "); ok {
			pkg = strings.TrimSpace(name)
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		runs, err := strconv.Atoi(f[1])
		if err != nil {
			continue
		}
		m := microResult{Package: pkg, Name: strings.TrimPrefix(f[0], "Benchmark"), Runs: runs, Values: map[string]float64{}}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				m.Values[f[i+1]] = v
			}
		}
		results = append(results, m)
	}
	return results
}

// microTable is a line for each benchmark; empty without any.
func microTable(results []microResult) string {
	if len(results) == 0 {
		return ""
	}
	units := []string{"ns/op", "MB/s", "B/op", "allocs/op"}
	var b strings.Builder
	b.WriteString(padRight("", 60))
	for _, u := range units {
		b.WriteString(padLeft(u, 14))
	}
	b.WriteString("\n")
	for _, m := range results {
		b.WriteString(padRight(shorten(path.Base(m.Package)+"."+m.Name, 60), 60))
		for _, u := range units {
			text := "-"
			if v, ok := m.Values[u]; ok {
				text = figure(v)
				if u == "allocs/op" || u == "B/op" {
					text = thousands(int(v))
				}
			}
			b.WriteString(padLeft(text, 14))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most-3] + "..."
}

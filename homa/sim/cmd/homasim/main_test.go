package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tougw/tougw/homa/sim"
)

var tiny = []string{"-racks", "2", "-hosts", "3", "-spines", "1", "-measure", "300us"}

func TestFigureIsWritten(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "figure")
	var out, progress bytes.Buffer
	args := append([]string{"-workloads", "W2,w1", "-schemes", "onequeue,homa", "-parallel", "2", "-out", folder}, tiny...)
	if err := run(context.Background(), args, &out, &progress); err != nil {
		t.Fatal(err)
	}
	if want := "table.txt, results.json and plot.svg are in " + folder + "\n"; !strings.HasSuffix(progress.String(), want) {
		t.Errorf("%q does not end with %q", &progress, want)
	}
	table, err := os.ReadFile(filepath.Join(folder, "table.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(table) || !strings.HasPrefix(out.String(), "W2 at 80 % load, 6 hosts") || !strings.Contains(out.String(), "\nW1 at") {
		t.Errorf("table:\n%s\nprinted:\n%s", table, out.String())
	}
	data, err := os.ReadFile(filepath.Join(folder, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var results []sim.Result
	if err := json.Unmarshal(data, &results); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, r := range results {
		order = append(order, r.Workload+" "+r.Scheme.Name)
		if r.All.Count == 0 || r.All.P99 < r.All.P50 {
			t.Errorf("%s: %+v", order[len(order)-1], r.All)
		}
	}
	if got := strings.Join(order, ", "); got != "W2 onequeue, W2 homa, W1 onequeue, W1 homa" {
		t.Errorf("results of %s", got)
	}
	plot, err := os.ReadFile(filepath.Join(folder, "plot.svg"))
	if err != nil || !bytes.HasPrefix(plot, []byte("<svg ")) {
		t.Errorf("plot: %.40q, %v", plot, err)
	}
}

func TestResultsAreReadAgain(t *testing.T) {
	var first, again bytes.Buffer
	var files []string
	for _, workload := range []string{"W1", "W2"} {
		folder := t.TempDir()
		args := append([]string{"-workloads", workload, "-schemes", "homa", "-out", folder}, tiny...)
		if err := run(context.Background(), args, &first, io.Discard); err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(folder, "results.json"))
	}
	if err := run(context.Background(), []string{"-read", strings.Join(files, ",")}, &again, io.Discard); err != nil {
		t.Fatal(err)
	}
	w1, w2, _ := strings.Cut(again.String(), "\n\nW2")
	if first.String() != w1+"\nW2"+w2 {
		t.Errorf("read:\n%s\nprinted before:\n%s", again.String(), first.String())
	}
	for content, want := range map[string]string{"": "JSON", "[]": "no results", "[null]": "result 1", `[{"workload":"W1"}]`: "slices"} {
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := os.WriteFile(bad, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(context.Background(), []string{"-read", bad}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %q", content, err, want)
		}
	}
	if err := run(context.Background(), []string{"-read", "/nowhere/results.json"}, io.Discard, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-workloads W9", "W9"},
		{"-schemes homa,tcp", "tcp"},
		{"-load 1.5", "load"},
		{"-racks 0", "0 racks"},
		{"-scale -1", "-scale"},
		{"-parallel 0", "-parallel"},
		{"-fifo 900", "FIFO"},
		{"rest", "rest"},
		{"-unknown", "unknown"},
	} {
		args := append(append([]string{}, tiny...), strings.Fields(c.args)...)
		if err := run(context.Background(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want something about %q", c.args, err, c.want)
		}
	}
	if err := run(context.Background(), []string{"-h"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}

func TestInterruptEndsAllRuns(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := run(ctx, tiny, io.Discard, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

package main

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParentOf(t *testing.T) {
	if got, err := parentOf("7 (a (strange) name 1 2) S 42 7 7 0"); err != nil || got != 42 {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "7 (x", "7 (x) S", "7 (x) S x"} {
		if _, err := parentOf(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestTree(t *testing.T) {
	got := tree(2, map[int]int{1: 0, 2: 1, 3: 2, 4: 3, 5: 1, 6: 2, 7: 7})
	slices.Sort(got)
	if !slices.Equal(got, []int{2, 3, 4, 6}) {
		t.Error(got)
	}
}

func TestUsageOfTree(t *testing.T) {
	u, err := usageOfTree(os.Getpid())
	if err != nil || u.RSS <= 0 || u.Descriptors <= 0 {
		t.Error(u, err)
	}
	const nobody = 1 << 30
	if _, err := usageOfTree(nobody); err == nil {
		t.Error("a process that does not exist has a usage")
	}
}

func TestParseMicro(t *testing.T) {
	got := parseMicro(`goos: linux
pkg: github.com/tougw/tougw/dtls
BenchmarkSeal/1400-2   	 1234567	       340.5 ns/op	4111.60 MB/s	       0 B/op	       0 allocs/op
BenchmarkBroken
--- FAIL: BenchmarkOther
PASS
pkg: github.com/tougw/tougw/gue
BenchmarkDecode-2 100 7 ns/op
Benchmark of nothing at all
`)
	want := []microResult{
		{"github.com/tougw/tougw/dtls", "Seal/1400-2", 1234567, map[string]float64{"ns/op": 340.5, "MB/s": 4111.6, "B/op": 0, "allocs/op": 0}},
		{"github.com/tougw/tougw/gue", "Decode-2", 100, map[string]float64{"ns/op": 7}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	table := microTable(got)
	if !strings.Contains(table, "dtls.Seal/1400-2") || !strings.Contains(table, "4,112") || microTable(nil) != "" {
		t.Error(table)
	}
}

func TestDTLSSuite(t *testing.T) {
	log := "Connected as 10.99.0.152, using SSL, with DTLS in progress\n" +
		"Established DTLS connection (using GnuTLS). Ciphersuite (DTLS1.2)-(PSK)-(AES-256-GCM).\nMore\n"
	if got, err := dtlsSuite(log); err != nil || got != "(DTLS1.2)-(PSK)-(AES-256-GCM)" {
		t.Error(got, err)
	}
	if _, err := dtlsSuite("DTLS handshake failed"); err == nil {
		t.Error("a failure is taken for a connection")
	}
}

func TestChosen(t *testing.T) {
	all := contenders("/opt/nebula")
	if got, err := chosen(all, ""); err != nil || len(got) != len(all) {
		t.Error(got, err)
	}
	got, err := chosen(all, "tougw, plain")
	if err != nil || len(got) != 2 || got[0].name != ours || got[1].name != "plain" {
		t.Error(got, err)
	}
	if _, err := chosen(all, "tougw,nobody"); err == nil || !strings.Contains(err.Error(), "wireguard-go") {
		t.Error(err)
	}
}

func TestNebulaConfig(t *testing.T) {
	text := nebulaConfig(nebulaEnd{name: "client", inner: nebulaClient}, nebulaEnd{name: "gateway", inner: nebulaGateway})
	for _, want := range []string{"cert: client.crt", `via: "10.88.0.2", mtu: 1440`, "udp_offloads: true"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "%!") {
		t.Error(text)
	}
}

func TestMeasurementsNameTheirParts(t *testing.T) {
	for _, full := range []bool{false, true} {
		for _, m := range []mode{offloadOn, offloadOff} {
			list := measurements(options{full: full}.defaults(), m)
			if len(list) < 2 {
				t.Errorf("%d measurements with full %v, offload %s", len(list), full, m)
			}
			for _, x := range list {
				if !slices.Contains(partNames, x.part) {
					t.Errorf("%s is in no part", x.title)
				}
			}
		}
	}
}

func TestValueOf(t *testing.T) {
	text := "processor\t: 0\nmodel name\t: Some CPU: 2 GHz\nmodel name\t: Other\n"
	if got := valueOf(text, "model name", ":"); got != "Some CPU: 2 GHz" {
		t.Error(got)
	}
	if got := valueOf(text, "nothing", ":"); got != "" {
		t.Error(got)
	}
}

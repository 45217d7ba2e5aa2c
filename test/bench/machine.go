package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is where the results come from.
type machine struct {
	CPU       string  `json:"cpu"`
	Cores     int     `json:"cores"`
	MemoryGiB float64 `json:"memory_gib"`
	Kernel    string  `json:"kernel"`
	System    string  `json:"system"`
	Virtual   string  `json:"virtual,omitempty"`
	// Congestion is the host's default, which sockets of a gateway get that
	// ends TCP.
	Congestion string `json:"default_congestion_control"`
	Go         string `json:"go"`
	Iperf      string `json:"iperf3"`
}

// thisMachine describes where we are; what cannot be found out stays empty.
func thisMachine(ctx context.Context) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), System: "Linux"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = valueOf(string(text), "model name", ":")
		for word := range strings.FieldsSeq(valueOf(string(text), "flags", ":")) {
			if word == "hypervisor" {
				m.Virtual = "virtual machine"
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if text, err := os.ReadFile("/etc/os-release"); err == nil {
		m.System = strings.Trim(valueOf(string(text), "PRETTY_NAME", "="), `"`)
	}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		m.Congestion = strings.TrimSpace(string(text))
	}
	if out, err := exec.CommandContext(ctx, "iperf3", "--version").Output(); err == nil {
		words := strings.Fields(firstLine(string(out)))
		m.Iperf = strings.Join(words[:min(2, len(words))], " ")
	}
	return m
}

// String is two lines for people.
func (m machine) String() string {
	virtual := ""
	if m.Virtual != "" {
		virtual = ", " + m.Virtual
	}
	return fmt.Sprintf("%s, %d cores, %.0f GiB%s; %s, Linux %s\n%s, %s; applications use %s, tougw's gateway towards them %s",
		m.CPU, m.Cores, m.MemoryGiB, virtual, m.System, m.Kernel, m.Go, m.Iperf, congestion, m.Congestion)
}

// valueOf is the value of the first line with a key in a text.
func valueOf(text, key, separator string) string {
	for line := range strings.Lines(text) {
		if k, value, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

package admin

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// FormatBytes writes a number of bytes for people, in powers of 1024.
func FormatBytes(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < 4 { // what would be rounded to 1024.0 too
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}

func formatAge(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%dd%dh%dm", d/(24*time.Hour), d/time.Hour%24, d/time.Minute%60)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// WriteText writes the status for people: one line a peer, and only drops that
// happened.
func (s *Status) WriteText(w io.Writer) error {
	p := &printer{w: w}
	p.f("%s: tougw %s, process %d, up %s, instance %s", s.Name, s.Version, s.PID,
		formatAge(time.Duration(s.UptimeS*float64(time.Second))), s.Instance)
	if s.Draining {
		p.f(", stopping")
	}
	p.f("\nflows: %d active, %d being opened; %d opened, %d failed, %d closed since the start; %d sessions\n",
		s.Flows.Active, s.Flows.Opening, s.Flows.Opened, s.Flows.Failed, s.Flows.Closed, s.Sessions)
	if t := s.Tun; t != nil {
		p.f("capture: %s (%s), MTU %d, %d queue(s), segmentation offload %s, routes %s\n", t.Name, t.Backend, t.MTU, t.Queues,
			onOff(t.TSO), dash(strings.Join(t.Routes, " ")))
		if t.Fallback != "" {
			p.f("         %s\n", t.Fallback)
		}
	}
	for _, k := range s.Sockets {
		steering := ""
		if k.Role == "listen" {
			steering = ", steering " + onOff(k.Steering)
		}
		p.f("socket: %s (%s), GSO %s, GRO %s%s, buffers %s in, %s out\n", k.Address, k.Role, onOff(k.GSO), onOff(k.GRO), steering,
			FormatBytes(uint64(k.RecvBuffer)), FormatBytes(uint64(k.SendBuffer)))
		if k.Fallback != "" {
			p.f("        %s\n", k.Fallback)
		}
	}
	if h := s.Homa; h != nil {
		p.f("homa: %d calls and %d served now, %d hosts; %d calls (%d failed) and %d served since the start; %s in, %s out, %s sent again\n",
			h.Calls, h.Served, h.Peers, h.CallsTotal, h.CallsFailed, h.ServedTotal,
			FormatBytes(h.BytesReceived), FormatBytes(h.BytesSent), FormatBytes(h.BytesResent))
		if h.Fallback != "" {
			p.f("      %s\n", h.Fallback)
		}
	}
	p.f("\n")
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	t := &printer{w: tw}
	t.f("PEER\tSTATE\tIDENTITY\tENDPOINT\tMTU\tRTT\tSESSIONS\tIN\tOUT\tHANDSHAKE\n")
	for _, e := range s.Peers {
		mtu, rtt, hs := "-", "-", "-"
		if e.PathMTU > 0 {
			mtu = strconv.Itoa(e.PathMTU)
		}
		if e.RTTMs > 0 {
			rtt = fmt.Sprintf("%.2fms", e.RTTMs)
		}
		if !e.LastHandshake.IsZero() {
			hs = formatAge(s.Started.Add(time.Duration(s.UptimeS*float64(time.Second))).Sub(e.LastHandshake)) + " ago"
		}
		endpoint := e.Endpoint
		if endpoint == "" {
			endpoint = strings.Join(e.Endpoints, ",")
		}
		t.f("%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", e.Name, e.State, dash(e.Identity), dash(endpoint), mtu, rtt,
			e.Sessions, FormatBytes(e.BytesIn), FormatBytes(e.BytesOut), hs)
	}
	if t.err == nil {
		t.err = tw.Flush()
	}
	for _, e := range s.Peers {
		if e.Error != "" {
			p.f("%s: %s\n", e.Name, e.Error)
		}
	}
	if p.err == nil {
		p.err = writeTranslations(w, s.Translations)
	}
	first := true
	for _, d := range s.Drops {
		if d.Count == 0 {
			continue
		}
		if first {
			p.f("\ndrops:\n")
			first = false
		}
		p.f("  %s %s: %d\n", d.Where, d.Reason, d.Count)
	}
	if p.err == nil {
		p.err = t.err
	}
	return p.err
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// WriteFlows writes flows for people, one line each.
func WriteFlows(w io.Writer, flows []Flow) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	p := &printer{w: tw}
	p.f("ID\tDIRECTION\tPEER\tSOURCE\tDESTINATION\tSTATE\tAGE\tUP\tDOWN\n")
	for _, f := range flows {
		p.f("%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.ID, f.Direction, dash(f.Peer), f.Src, f.Dst, f.State,
			formatAge(time.Duration(f.AgeS*float64(time.Second))), FormatBytes(f.BytesUp), FormatBytes(f.BytesDown))
	}
	if p.err != nil {
		return p.err
	}
	return tw.Flush()
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"testing"

	captures "github.com/tougw/tougw/test/vectors/homa"
)

// eachCapture runs f as a subtest for every capture.
func eachCapture(t *testing.T, f func(t *testing.T, c *captures.Capture, v Version, frames []captures.Frame)) {
	all, err := captures.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		t.Run(c.File, func(t *testing.T) {
			v, err := ParseVersion(c.Version)
			if err != nil {
				t.Fatal(err)
			}
			frames, err := c.Frames()
			if err != nil {
				t.Fatal(err)
			}
			f(t, &c, v, frames)
		})
	}
}

// whole returns the packet of a frame, filled up with zeros to the length that
// the IP header says where the recording was cut.
func whole(f *captures.Frame) []byte {
	if len(f.Payload) == f.Length {
		return f.Payload
	}
	return append(bytes.Clone(f.Payload), make([]byte, f.Length-len(f.Payload))...)
}

// TestCaptures: every packet that Linux sent decodes, and encodes again to the
// same bytes. Of frames that were cut, what is left is compared: all of the
// header, but for the end of a few ACK packets. Packets are counted by type.
func TestCaptures(t *testing.T) {
	leftovers := 0
	eachCapture(t, func(t *testing.T, c *captures.Capture, v Version, frames []captures.Frame) {
		counts := map[string]int{}
		for i, f := range frames {
			if f.ICMP() {
				counts["ICMP"]++
				continue
			}
			if f.Protocol != v.IPProtocol() && f.Protocol != ProtocolHijack {
				t.Errorf("frame %d: IP protocol %d", i, f.Protocol)
			}
			b := whole(&f)
			var p Packet
			var x Ignored
			err := v.DecodeExact(&p, &x, b)
			if errors.Is(err, ErrLeftover) {
				leftovers++
				counts["DATA"]++
				if len(b) != 52 {
					t.Errorf("frame %d: leftover of %d bytes", i, len(b))
				}
				continue
			}
			if err != nil {
				t.Errorf("frame %d: %v: %x", i, err, b)
				continue
			}
			counts[p.Type.String()]++
			if len(f.Payload) < commonSize || p.Type == Data && len(f.Payload) < dataSize {
				t.Errorf("frame %d: cut to %d bytes, in the header", i, len(f.Payload))
			}
			if got := v.AppendExact(nil, &p, &x); !bytes.Equal(got[:len(f.Payload)], f.Payload) || len(got) != f.Length {
				t.Errorf("frame %d:\n got %x\nwant %x", i, got, b)
			}
			checkDefined(t, v, &p, fmt.Sprintf("%s frame %d", c.File, i))
		}
		if !maps.Equal(counts, c.Packets) {
			t.Errorf("packets %v, want %v", counts, c.Packets)
		}
	})
	if leftovers != 2 {
		t.Errorf("%d leftovers of segmentation, want 2, of main_gso_tso_100k_v4.pcap", leftovers)
	}
}

// checkDefined: the canonical form of a packet of Linux holds the same.
func checkDefined(t *testing.T, v Version, p *Packet, name string) {
	t.Helper()
	want, got := *p, Packet{}
	clear(want.Acks[want.NumAcks:])
	if err := v.Decode(&got, v.Append(nil, p)); err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if !bytes.Equal(got.Data, want.Data) {
		t.Errorf("%s: data %x, want %x", name, got.Data, want.Data)
	}
	got.Data, want.Data = nil, nil
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
	}
}

// TestCapturedMessages puts the data of every DATA packet where Offset says, and
// compares it with what the hosts are known to have sent. This holds in
// particular for frames that a kernel or network card segmented.
func TestCapturedMessages(t *testing.T) {
	eachCapture(t, func(t *testing.T, c *captures.Capture, v Version, frames []captures.Frame) {
		misplaced := 0
		for i, f := range frames {
			var p Packet
			if f.ICMP() || v.Decode(&p, whole(&f)) != nil || p.Type != Data {
				continue
			}
			bad := uint64(p.Offset)+uint64(len(p.Data)) > uint64(p.Length)
			for at := dataSize; at < len(f.Payload) && !bad; at++ {
				// The first bytes may be the request's header instead.
				n := int(p.Offset) + at - dataSize
				bad = n >= captures.HeaderSize && f.Payload[at] != captures.Byte(n)
			}
			if bad {
				misplaced++
				if c.File != livelock {
					t.Errorf("frame %d: not the data of [%d, %d) of %d", i, p.Offset, int(p.Offset)+len(p.Data), p.Length)
				}
			}
		}
		if c.File == livelock && misplaced == 0 {
			t.Error("no data is misplaced in the capture that is known for it")
		}
	})
}

// livelock shows a sender that cut frames at the wrong places.
const livelock = "v6138_trap_overlap_livelock_v6.pcap"

// TestDetectCaptures: no packet speaks against the version it is of, and a host
// is known as soon as one of its packets tells.
func TestDetectCaptures(t *testing.T) {
	decided := map[Version]int{}
	eachCapture(t, func(t *testing.T, c *captures.Capture, v Version, frames []captures.Frame) {
		hosts, told := map[netip.Addr]Versions{}, map[netip.Addr]bool{}
		for i, f := range frames {
			if f.ICMP() {
				continue
			}
			s := Detect(f.Protocol, whole(&f))
			var p Packet
			if err := v.Decode(&p, whole(&f)); errors.Is(err, ErrLeftover) {
				if s != 0 {
					t.Errorf("frame %d: leftover of segmentation detected as %03b", i, s)
				}
				continue
			}
			if !s.Has(v) {
				t.Errorf("frame %d: %v %+v detected as %03b", i, v, p, s)
			}
			if _, ok := hosts[f.Src]; !ok {
				hosts[f.Src] = AllVersions
			}
			hosts[f.Src] &= s
			switch v {
			case Stripped:
				told[f.Src] = true
			case Linux61:
				told[f.Src] = told[f.Src] || f.Protocol == ProtocolLinux61 || p.Type == Ack
			case Main:
				told[f.Src] = told[f.Src] || p.Type == Grant || p.Type == Resend && p.RangeLength == ResendAllLength
			}
		}
		for host, s := range hosts {
			got, ok := s.Only()
			if ok != told[host] || ok && got != v {
				t.Errorf("%v: %03b, told apart %v, want %v", host, s, ok, told[host])
			}
			if ok {
				decided[got]++
			}
		}
	})
	if decided[Main] == 0 || decided[Stripped] == 0 || decided[Linux61] == 0 {
		t.Errorf("hosts told apart: %v", decided)
	}
}

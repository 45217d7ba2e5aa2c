package gue

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// readCapture returns the frames of testdata/captures/name.gz.
func readCapture(t testing.TB, name string) (frames [][]byte, link layers.LinkType) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "captures", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewReader(z)
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames, r.LinkType()
		}
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, b)
	}
}

// parseOuter takes an Ethernet frame apart; payload is that of UDP.
func parseOuter(t testing.TB, frame []byte) (*Outer, []byte) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok {
		t.Fatalf("no UDP in %x", frame)
	}
	var o Outer
	var pseudo []byte
	if ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		o.Src, o.Dst, o.TOS = addrPort(ip.SrcIP, uint16(udp.SrcPort)), addrPort(ip.DstIP, uint16(udp.DstPort)), ip.TOS
		pseudo = append(append(pseudo, ip.SrcIP.To4()...), ip.DstIP.To4()...)
	} else {
		ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		o.Src, o.Dst, o.TOS = addrPort(ip.SrcIP, uint16(udp.SrcPort)), addrPort(ip.DstIP, uint16(udp.DstPort)), ip.TrafficClass
		pseudo = append(append(pseudo, ip.SrcIP...), ip.DstIP...)
	}
	pseudo = binary.BigEndian.AppendUint16(append(pseudo, 0, 17), udp.Length)
	switch {
	case udp.Checksum == 0:
		o.Checksum = ChecksumZero
	case naiveSum(append(append(pseudo, udp.Contents...), udp.Payload...)) == 0xffff:
		o.Checksum = ChecksumVerified
	default:
		t.Fatalf("outer UDP checksum of %x", frame)
	}
	return &o, udp.Payload
}

// gre returns what a GRE packet carries (RFC 2784, RFC 2890).
func gre(t testing.TB, b []byte) []byte {
	t.Helper()
	n := 4
	for _, flag := range []byte{0x80, 0x20, 0x10} { // checksum, key, sequence
		if b[0]&flag != 0 {
			n += 4
		}
	}
	return b[n:]
}

// linkHeader is the length of the header that a capture puts before a packet.
func linkHeader(t testing.TB, l layers.LinkType) int {
	t.Helper()
	switch l {
	case layers.LinkTypeRaw, layers.LinkTypeEthernet: // gretap carries the frame itself
		return 0
	case layers.LinkTypeLinuxSLL:
		return 16
	}
	t.Fatalf("link type %v", l)
	return 0
}

// TestKernelCaptures decapsulates what Debian's 6.1 kernel sent through tunnels
// of every type, and expects the packets that the kernel itself took out.
func TestKernelCaptures(t *testing.T) {
	files, err := filepath.Glob("testdata/captures/*.inner.pcap.gz")
	if err != nil || len(files) != 19 {
		t.Fatalf("%d captures, %v", len(files), err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".inner.pcap.gz")
		t.Run(name, func(t *testing.T) { testCapture(t, name) })
	}
}

func testCapture(t *testing.T, name string) {
	r, err := NewReceiver(ReceiverConfig{
		Profile:                  ProfileLinux,
		Protocols:                []Protocol{ProtoIPv4, ProtoIPv6, ProtoGRE},
		UnverifiedRemoteChecksum: strings.HasSuffix(name, "remcsum-nocsum"),
		ZeroChecksum6: []AddrPair{
			{outer6.Src.Addr(), outer6.Dst.Addr()},
			{outer6.Dst.Addr(), outer6.Src.Addr()},
		},
		ZeroChecksum6Port: Port,
	})
	if err != nil {
		t.Fatal(err)
	}
	innerFrames, link := readCapture(t, name+".inner.pcap")
	skip := linkHeader(t, link)
	want := make(map[string]int)
	for _, p := range innerFrames {
		want[string(p[skip:])]++
	}
	frames, _ := readCapture(t, name+".pcap")
	remote := 0
	for i, frame := range frames {
		out, payload := parseOuter(t, frame)
		original := bytes.Clone(payload)
		var m Message
		if drop := r.Receive(epoch, out, payload, &m); drop != DropNone {
			t.Errorf("packet %d: %v", i, drop)
			continue
		}
		// The kernel leaves the completion of a remote checksum to later, so
		// its inner capture has the packet as it came over the wire.
		got := original[len(original)-len(m.Payload):]
		if m.Has&FieldRemoteChecksum == 0 {
			got = m.Payload
		} else {
			remote++
			checkTransport(t, m.Payload)
		}
		if m.Proto == ProtoGRE {
			got = gre(t, got)
		}
		if want[string(got)]--; want[string(got)] < 0 {
			t.Errorf("packet %d: %x is not among the inner packets", i, got)
		}
		checkReencode(t, original)
	}
	for p, n := range want {
		if n > 0 {
			t.Errorf("%d times not found: %x", n, p)
		}
	}
	if strings.Contains(name, "remcsum") != (remote > 0) {
		t.Errorf("%d packets with remote checksum offload", remote)
	}
}

// checkTransport wants the TCP or UDP checksum of an IP packet to be right.
func checkTransport(t *testing.T, ip []byte) {
	t.Helper()
	var pseudo, seg []byte
	var proto byte
	if ip[0]>>4 == 4 {
		pseudo, seg, proto = bytes.Clone(ip[12:20]), ip[int(ip[0]&15)*4:], ip[9]
	} else {
		pseudo, seg, proto = bytes.Clone(ip[8:40]), ip[40:], ip[6]
	}
	pseudo = binary.BigEndian.AppendUint16(append(pseudo, 0, proto), uint16(len(seg)))
	if naiveSum(append(pseudo, seg...)) != 0xffff {
		t.Errorf("transport checksum of %x", ip)
	}
}

// checkReencode wants the header that the kernel wrote from our encoder.
func checkReencode(t *testing.T, b []byte) {
	t.Helper()
	if b[0]&variantMask != 0 {
		return
	}
	var h Header
	n, drop := h.Decode(ProfileLinux, b)
	if drop != DropNone {
		t.Fatal(drop)
	}
	out := dirty(MaxLen)
	k, err := h.Encode(ProfileLinux, out)
	if err != nil || !bytes.Equal(out[:k], b[:n]) {
		t.Errorf("encoded %x, %v; the kernel wrote %x", out[:k], err, b[:n])
	}
}

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Content types of DTLS 1.2 records (RFC 6347, RFC 9146).
const (
	typeChangeCipherSpec = 20
	typeConnectionID     = 25
)

// Lengths in bytes.
const (
	// recordHeader is type, version, epoch, sequence number and length.
	recordHeader = 13
	// maxRecord is the longest protected fragment (RFC 5246 §6.2.3).
	maxRecord = 1<<14 + 2048
	// maxConnectionID is the longest Connection ID (RFC 9146 §3).
	maxConnectionID = 255
)

var typeNames = map[uint8]string{
	20: "change_cipher_spec", 21: "alert", 22: "handshake", 23: "application_data", 25: "tls12_cid",
}

// TypeName is the name that the RFCs give a content type.
func TypeName(t uint8) string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprint(t)
}

// Report says what is in a capture.
type Report struct {
	// Packets of all kinds, and Bytes of them on the wire.
	Packets, Bytes int
	// Datagrams are the UDP datagrams that hold DTLS. A run that segmentation
	// offload carried as one packet counts as one.
	Datagrams int
	// Records counts the DTLS records by content type.
	Records map[uint8]int
	// Versions are the record versions seen, for example fefd.
	Versions map[uint16]int
	// Neighbour counts ARP, neighbour discovery and multicast listener packets,
	// without which no link works.
	Neighbour int
	// Unreachable counts ICMP errors of hosts or routers about a datagram of the
	// tunnel, such as one for a socket that was just closed. They hold what the
	// datagram began with, and nothing else.
	Unreachable int
	// Strange lists what should not be there, at most maxStrange of it, and
	// StrangePackets counts all of it.
	Strange        []string
	StrangePackets int
	// Canary is how often the canary was found in any packet.
	Canary int
}

const maxStrange = 10

// TotalRecords is the number of DTLS records of all types.
func (r *Report) TotalRecords() (n int) {
	for _, count := range r.Records {
		n += count
	}
	return n
}

// Err is nil when the capture shows a DTLS tunnel and nothing else.
func (r *Report) Err() error {
	switch {
	case r.Canary > 0:
		return fmt.Errorf("wire: plaintext in %d packets", r.Canary)
	case r.StrangePackets > 0:
		return fmt.Errorf("wire: %d packets are not DTLS, the first: %v", r.StrangePackets, r.Strange)
	case r.Datagrams == 0:
		return errors.New("wire: no DTLS in the capture")
	}
	return nil
}

func (r *Report) strange(format string, args ...any) {
	r.StrangePackets++
	if len(r.Strange) < maxStrange {
		r.Strange = append(r.Strange, fmt.Sprintf("packet %d: ", r.Packets)+fmt.Sprintf(format, args...))
	}
}

// way is one direction of a UDP flow.
type way struct{ src, dst netip.AddrPort }

// checker holds what is learned on the way through a capture.
type checker struct {
	Report
	port   uint16
	canary []byte
	// lengths holds, for each direction, the lengths of a Connection ID that
	// explain every record so far: the length is not on the wire.
	lengths map[way][]int
}

// CheckFile reads a capture in libpcap's format. Every packet must be a UDP
// datagram from or to port that holds DTLS 1.2 records and nothing else, or
// belong to the neighbour protocols; none may contain canary, unless that is
// empty. The error is about the file; Report.Err is about what it holds.
func CheckFile(name string, port uint16, canary []byte) (*Report, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	reader, err := pcapgo.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("wire: %s: %w", name, err)
	}
	c := &checker{
		Report:  Report{Records: map[uint8]int{}, Versions: map[uint16]int{}},
		port:    port,
		canary:  canary,
		lengths: map[way][]int{},
	}
	for {
		data, info, err := reader.ZeroCopyReadPacketData()
		if errors.Is(err, io.EOF) {
			return &c.Report, nil
		}
		if err != nil {
			return nil, fmt.Errorf("wire: %s: %w", name, err)
		}
		c.Packets++
		c.Bytes += info.Length
		if info.CaptureLength < info.Length {
			return nil, fmt.Errorf("wire: %s: packet %d is cut short", name, c.Packets)
		}
		c.packet(gopacket.NewPacket(data, reader.LinkType(), gopacket.DecodeOptions{Lazy: true, NoCopy: true}))
	}
}

func (c *checker) packet(p gopacket.Packet) {
	if len(c.canary) > 0 && bytes.Contains(p.Data(), c.canary) {
		c.Canary++
	}
	if neighbour(p) {
		c.Neighbour++
		return
	}
	if c.unreachable(p) {
		c.Unreachable++
		return
	}
	udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if udp == nil {
		c.strange("%s", summary(p))
		return
	}
	if uint16(udp.SrcPort) != c.port && uint16(udp.DstPort) != c.port {
		c.strange("UDP from port %d to %d", udp.SrcPort, udp.DstPort)
		return
	}
	src, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
	dst, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
	w := way{netip.AddrPortFrom(src, uint16(udp.SrcPort)), netip.AddrPortFrom(dst, uint16(udp.DstPort))}
	if err := c.datagram(w, udp.Payload); err != nil {
		c.strange("%v > %v: %v", w.src, w.dst, err)
		return
	}
	c.Datagrams++
}

// neighbour reports whether the packet belongs to what a link needs in order to
// work: ARP, neighbour and router discovery, multicast listeners.
func neighbour(p gopacket.Packet) bool {
	if p.Layer(layers.LayerTypeARP) != nil {
		return true
	}
	icmp, _ := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	if icmp == nil {
		return false
	}
	switch icmp.TypeCode.Type() {
	case layers.ICMPv6TypeNeighborSolicitation, layers.ICMPv6TypeNeighborAdvertisement,
		layers.ICMPv6TypeRouterSolicitation, layers.ICMPv6TypeRouterAdvertisement,
		layers.ICMPv6TypeMLDv1MulticastListenerQueryMessage, layers.ICMPv6TypeMLDv1MulticastListenerReportMessage,
		layers.ICMPv6TypeMLDv1MulticastListenerDoneMessage, layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2:
		return true
	}
	return false
}

// unreachable reports whether the packet is an ICMP error about a datagram of
// the tunnel.
func (c *checker) unreachable(p gopacket.Packet) bool {
	var quote []byte
	first := layers.LayerTypeIPv4
	if icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && icmp.TypeCode.Type() == layers.ICMPv4TypeDestinationUnreachable {
		quote = icmp.Payload
	}
	if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && icmp.TypeCode.Type() == layers.ICMPv6TypeDestinationUnreachable && len(icmp.Payload) > 4 {
		first, quote = layers.LayerTypeIPv6, icmp.Payload[4:]
	}
	if quote == nil {
		return false
	}
	// The datagram is cut short, so its lengths do not fit.
	inner := gopacket.NewPacket(quote, first, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	udp, _ := inner.Layer(layers.LayerTypeUDP).(*layers.UDP)
	return udp != nil && (uint16(udp.SrcPort) == c.port || uint16(udp.DstPort) == c.port)
}

func summary(p gopacket.Packet) (s string) {
	for _, l := range p.Layers() {
		s += l.LayerType().String() + " "
	}
	return s + fmt.Sprintf("(%d bytes)", len(p.Data()))
}

// record is one DTLS record's cleartext part.
type record struct {
	kind    uint8
	version uint16
}

// datagram checks that a payload is a run of whole records, and counts them.
func (c *checker) datagram(w way, payload []byte) error {
	lengths := c.lengths[w]
	if lengths == nil {
		for n := range maxConnectionID + 1 {
			lengths = append(lengths, n)
		}
	}
	var (
		fitting []int
		found   []record
		first   error
	)
	for _, n := range lengths {
		records, usesID, err := split(payload, n)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		found = records
		if !usesID {
			// The datagram says nothing about the length.
			fitting = lengths
			break
		}
		fitting = append(fitting, n)
	}
	if len(fitting) == 0 {
		return first
	}
	c.lengths[w] = fitting
	for _, r := range found {
		c.Records[r.kind]++
		c.Versions[r.version]++
	}
	return nil
}

// split cuts a payload into records, taking Connection IDs for idLen bytes
// long. usesID tells whether any record had one.
func split(b []byte, idLen int) (records []record, usesID bool, err error) {
	if len(b) == 0 {
		return nil, false, errors.New("empty datagram")
	}
	for len(b) > 0 {
		if len(b) < recordHeader {
			return nil, usesID, fmt.Errorf("%d bytes are left, too few for a record", len(b))
		}
		r := record{kind: b[0], version: binary.BigEndian.Uint16(b[1:])}
		if _, known := typeNames[r.kind]; !known {
			return nil, usesID, fmt.Errorf("content type %d", r.kind)
		}
		// DTLS 1.2, or 1.0 in the records of a first ClientHello.
		if r.version != 0xfefd && r.version != 0xfeff {
			return nil, usesID, fmt.Errorf("record version %04x", r.version)
		}
		header := recordHeader
		if r.kind == typeConnectionID {
			usesID = true
			header += idLen
		}
		if len(b) < header {
			return nil, usesID, fmt.Errorf("%d bytes are left, too few for a record", len(b))
		}
		length := int(binary.BigEndian.Uint16(b[header-2:]))
		if length == 0 || length > maxRecord || header+length > len(b) {
			return nil, usesID, fmt.Errorf("a record of type %d says %d bytes, %d are there", r.kind, length, len(b)-header)
		}
		if epoch := binary.BigEndian.Uint16(b[3:]); epoch == 0 && r.kind > typeChangeCipherSpec+2 {
			return nil, usesID, fmt.Errorf("content type %d in epoch 0, which is plaintext", r.kind)
		}
		records = append(records, r)
		b = b[header+length:]
	}
	return records, usesID, nil
}

// Package captures reads the recorded traffic of Linux Homa hosts that lies
// beside it. README.md says what it is. Only tests import the package.
package captures

import (
	"embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

//go:embed index.json *.pcap
var files embed.FS

// Capture is one recorded scenario.
type Capture struct {
	File     string
	Version  string // of both hosts, by the names of homa/wire
	IP       int    // 4 or 6
	Scenario string
	Packets  map[string]int // by Homa type, or ICMP for either version of it
	Cut      bool           // frames were cut to 128 bytes
}

// Frame is one packet of a capture.
type Frame struct {
	At           time.Duration // since the first frame of the capture
	Src, Dst     netip.Addr
	Protocol     uint8 // IPv4's protocol, IPv6's next header
	TrafficClass uint8 // IPv4's TOS
	Payload      []byte
	Length       int // of the IP payload; above len(Payload) where the frame was cut
}

// ICMP reports whether the frame is an ICMP message.
func (f *Frame) ICMP() bool {
	return f.Protocol == uint8(layers.IPProtocolICMPv4) || f.Protocol == uint8(layers.IPProtocolICMPv6)
}

// All returns the captures in the order of their names.
func All() ([]Capture, error) {
	b, err := files.ReadFile("index.json")
	if err != nil {
		return nil, err
	}
	var all []Capture
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	return all, nil
}

// Frames returns all packets of the capture in the order of their recording.
func (c *Capture) Frames() ([]Frame, error) {
	f, err := files.Open(c.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	var frames []Frame
	var first time.Time
	for {
		b, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.File, err)
		}
		frame, err := parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: frame %d: %w", c.File, len(frames), err)
		}
		if len(frames) == 0 {
			first = info.Timestamp
		}
		frame.At = info.Timestamp.Sub(first)
		frames = append(frames, frame)
	}
}

// parse takes an Ethernet frame apart. Padding behind the IP packet is cut off,
// as the length of Homa's data follows from that of the IP packet alone.
func parse(b []byte) (f Frame, err error) {
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Lazy)
	var src, dst []byte
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		src, dst, f.Protocol, f.TrafficClass = ip.SrcIP.To4(), ip.DstIP.To4(), uint8(ip.Protocol), ip.TOS
		f.Payload, f.Length = ip.Payload, int(ip.Length)-len(ip.Contents)
	case *layers.IPv6:
		src, dst, f.Protocol, f.TrafficClass = ip.SrcIP, ip.DstIP, uint8(ip.NextHeader), ip.TrafficClass
		f.Payload, f.Length = ip.Payload, int(ip.Length)
	default:
		return f, fmt.Errorf("no IP in %x", b)
	}
	f.Payload = f.Payload[:min(len(f.Payload), f.Length)]
	f.Src, _ = netip.AddrFromSlice(src)
	f.Dst, _ = netip.AddrFromSlice(dst)
	return f, nil
}

// Byte is byte i of a message in the captures, but for the Header of requests.
func Byte(i int) byte { return byte(i ^ (i>>8)*31 ^ (i>>16)*17) }

// HeaderSize is the size in bytes of Header in a message.
const HeaderSize = 16

// Header stands at the start of requests of HeaderSize bytes or more, and says
// what the server did with them.
type Header struct {
	Response int // length in bytes; 0: the request came back
	Delay    time.Duration
	Never    bool // there was no response
}

// ReadHeader reads the header at the start of a request.
func ReadHeader(b []byte) (h Header, err error) {
	if len(b) < HeaderSize || string(b[:4]) != "HTST" {
		return h, fmt.Errorf("no header in %x", b[:min(len(b), HeaderSize)])
	}
	return Header{
		Response: int(binary.BigEndian.Uint32(b[4:])),
		Delay:    time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Millisecond,
		Never:    binary.BigEndian.Uint32(b[12:])&1 != 0,
	}, nil
}

package wire

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// rec builds a record of length bytes with a Connection ID.
func rec(kind uint8, epoch uint16, id string, length int) []byte {
	b := []byte{kind, 0xfe, 0xfd}
	b = binary.BigEndian.AppendUint16(b, epoch)
	b = append(b, 0, 0, 0, 0, 0, 9)
	b = append(b, id...)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	for i := range length {
		b = append(b, byte(i*7+length))
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// udpPacket is an Ethernet frame with a datagram to port 443.
func udpPacket(t *testing.T, dstPort uint16, payload []byte) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{192, 0, 2, 2}, DstIP: net.IP{203, 0, 113, 7}}
	udp := &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(dstPort)}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	return frame(t, layers.EthernetTypeIPv4, ip, udp, gopacket.Payload(payload))
}

func frame(t *testing.T, kind layers.EthernetType, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: kind}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, append([]gopacket.SerializableLayer{eth}, ls...)...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func arp(t *testing.T) []byte {
	return frame(t, layers.EthernetTypeARP, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1,
		SourceHwAddress: make([]byte, 6), SourceProtAddress: make([]byte, 4), DstHwAddress: make([]byte, 6), DstProtAddress: make([]byte, 4),
	})
}

func tcpPacket(t *testing.T) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{192, 0, 2, 2}, DstIP: net.IP{203, 0, 113, 7}}
	tcp := &layers.TCP{SrcPort: 40000, DstPort: 443, SYN: true}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	return frame(t, layers.EthernetTypeIPv4, ip, tcp)
}

func capture(t *testing.T, packets ...[]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.pcap")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(1<<18, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(p), Length: len(p)}, p); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// portUnreachable is the ICMP error that the host at the other end of frame
// would send for it.
func portUnreachable(t *testing.T, frameAbout []byte) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: net.IP{203, 0, 113, 7}, DstIP: net.IP{192, 0, 2, 2}}
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort)}
	const ethernet, quoted = 14, 20 + 8 + 20
	return frame(t, layers.EthernetTypeIPv4, ip, icmp, gopacket.Payload(frameAbout[ethernet:ethernet+quoted]))
}

func TestCheckFile(t *testing.T) {
	const id = "8 bytes."
	hello, ccs := rec(22, 0, "", 180), rec(20, 0, "", 1)
	for _, c := range []struct {
		name    string
		packets [][]byte
		want    string // in the error, empty for none
	}{
		{"handshake and data", [][]byte{arp(t), udpPacket(t, 443, hello), udpPacket(t, 443, join(ccs, rec(22, 1, "", 40))), udpPacket(t, 443, rec(23, 1, "", 1300))}, ""},
		{"connection ids", [][]byte{udpPacket(t, 443, hello), udpPacket(t, 443, join(rec(25, 1, id, 300), rec(25, 1, id, 300), rec(25, 1, id, 17)))}, ""},
		{"a socket just closed", [][]byte{udpPacket(t, 443, hello), portUnreachable(t, udpPacket(t, 443, hello))}, ""},
		{"an error about something else", [][]byte{udpPacket(t, 443, hello), portUnreachable(t, udpPacket(t, 53, hello))}, "ICMPv4"},
		{"first version", [][]byte{udpPacket(t, 443, join([]byte{22, 0xfe, 0xff}, hello[3:]))}, ""},
		{"nothing", [][]byte{arp(t)}, "no DTLS"},
		{"a TCP packet", [][]byte{udpPacket(t, 443, hello), tcpPacket(t)}, "TCP"},
		{"another port", [][]byte{udpPacket(t, 443, hello), udpPacket(t, 53, hello)}, "port 40000 to 53"},
		{"not a record", [][]byte{udpPacket(t, 443, []byte("GET / HTTP/1.1 and more"))}, "content type 71"},
		{"wrong version", [][]byte{udpPacket(t, 443, join([]byte{22, 3, 3}, hello[3:]))}, "version 0303"},
		{"trailing bytes", [][]byte{udpPacket(t, 443, join(hello, []byte{1, 2, 3}))}, "3 bytes are left"},
		{"short record", [][]byte{udpPacket(t, 443, hello[:100])}, "says 180 bytes, 87 are there"},
		{"plaintext data", [][]byte{udpPacket(t, 443, rec(23, 0, "", 100))}, "plaintext"},
		{"empty", [][]byte{udpPacket(t, 443, nil)}, "empty"},
		{"ids of two lengths", [][]byte{
			udpPacket(t, 443, join(rec(25, 1, id, 300), rec(25, 1, id, 300))),
			udpPacket(t, 443, join(rec(25, 1, "four", 300), rec(25, 1, "four", 300))),
		}, "record"},
		{"canary", [][]byte{udpPacket(t, 443, join(hello, rec(23, 1, "", 100)[:13], bytes.Repeat([]byte("canary!!!!"), 10)))}, "plaintext in 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := CheckFile(capture(t, c.packets...), 443, []byte("canary"))
			if err != nil {
				t.Fatal(err)
			}
			err = r.Err()
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if r.Packets != len(c.packets) {
				t.Errorf("%d packets, want %d", r.Packets, len(c.packets))
			}
		})
	}
}

func TestCheckFileCounts(t *testing.T) {
	r, err := CheckFile(capture(t, arp(t),
		udpPacket(t, 443, rec(22, 0, "", 180)),
		udpPacket(t, 443, join(rec(23, 1, "", 50), rec(23, 1, "", 60))),
		udpPacket(t, 443, rec(25, 1, "identity", 60))), 443, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Neighbour != 1 || r.Datagrams != 3 || r.TotalRecords() != 4 || r.Records[22] != 1 || r.Records[23] != 2 || r.Records[25] != 1 || r.Versions[0xfefd] != 4 {
		t.Errorf("%+v", r)
	}
}

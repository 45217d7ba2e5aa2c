package gue

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"testing"
	"time"
)

// vector is one entry of testdata/vectors.json: a UDP payload, what a receiver
// of gue-09 and extensions-06 should do with it, and what Linux 6.1 did.
type vector struct {
	Name     string
	Outer    string
	OuterTOS uint8  `json:"outer_tos"`
	UDPCsum  string `json:"udp_csum"`
	Payload  string
	Verdict  string
	Meaning  string
	Linux61  string
}

func loadVectors(t testing.TB) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 83 {
		t.Fatalf("%d vectors, want 83", len(file.Vectors))
	}
	return file.Vectors
}

func (v *vector) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (v *vector) outer() *Outer {
	o := &Outer{Src: outer4.Src, Dst: outer4.Dst, TOS: v.OuterTOS}
	if v.Outer == "ip6" {
		o.Src, o.Dst = outer6.Src, outer6.Dst
	}
	o.Checksum = map[string]ChecksumState{"ok": ChecksumVerified, "zero": ChecksumZero, "bad": ChecksumBad}[v.UDPCsum]
	return o
}

var (
	outer4 = Outer{
		Src:      netip.MustParseAddrPort("192.0.2.1:50000"),
		Dst:      netip.MustParseAddrPort("192.0.2.2:6080"),
		Checksum: ChecksumVerified,
	}
	outer6 = Outer{
		Src:      netip.MustParseAddrPort("[2001:db8:1::1]:50000"),
		Dst:      netip.MustParseAddrPort("[2001:db8:1::2]:6080"),
		Checksum: ChecksumVerified,
	}
	epoch = time.Unix(1_700_000_000, 0)
)

// vectorKey is the HMAC key of the vectors.
var vectorKey = HMACKey{ID: 7, Key: []byte("gue-test-key")}

// unhex is for literals.
func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// policyCase is a configuration and what it makes of a vector.
type policyCase struct {
	label string
	set   func(*ReceiverConfig)
	want  Drop
}

// strict is the configuration in which a vector is judged unless a case says
// otherwise: extensions-06, IP packets, nothing agreed on.
func strict() ReceiverConfig {
	return ReceiverConfig{
		Profile:    ProfileTougw,
		Protocols:  []Protocol{ProtoIPv4, ProtoIPv6},
		Reassembly: &ReassemblerConfig{},
	}
}

func protocols(p ...Protocol) func(*ReceiverConfig) {
	return func(c *ReceiverConfig) { c.Protocols = p }
}

func inner(k InnerChecksum, p ...Protocol) func(*ReceiverConfig) {
	return func(c *ReceiverConfig) { c.InnerChecksum, c.Protocols = k, p }
}

func cookies(hexes ...string) func(*ReceiverConfig) {
	return func(c *ReceiverConfig) {
		for _, h := range hexes {
			c.Cookies = append(c.Cookies, unhex(h))
		}
	}
}

func keys(c *ReceiverConfig) { c.Keys = []HMACKey{vectorKey} }

// dtlsStub accepts DTLS records and answers with a fixed packet; private
// transforms leave the payload as it is.
type dtlsStub struct{}

func (dtlsStub) Reverse(tr Transform, p []byte) ([]byte, bool) {
	switch {
	case tr.Type == TransformDTLS && tr.Info == 0 && len(p) > 13 && p[0] == 23:
		return unhex("4500001c01014000400125ca0a0a00010a0a000208008fa967550101"), true
	case tr.Type >= 128:
		return p, true
	}
	return nil, false
}

func dtls(c *ReceiverConfig) { c.Transform = dtlsStub{} }

func both(a ...func(*ReceiverConfig)) func(*ReceiverConfig) {
	return func(c *ReceiverConfig) {
		for _, f := range a {
			f(c)
		}
	}
}

func drawn(k InnerChecksum) func(*ReceiverConfig) {
	return func(c *ReceiverConfig) {
		c.Profile, c.Protocols, c.InnerChecksum = ProfileTouDrawn, []Protocol{ProtoTCP}, k
	}
}

// vectorCases has, for each vector, the configurations in which it is tried.
// A vector whose verdict is accept or drop must get it in every case but those
// marked by a label that says why not; policy vectors name each policy.
var vectorCases = map[string][]policyCase{
	"v0-ipv4": {{"", nil, DropNone}, {"not accepted", protocols(ProtoIPv6), DropProtocol},
		{"security agreed", cookies("0102030405060708"), DropMissing}},
	"v0-ipv4-zerocsum": {{"", nil, DropNone},
		{"refused by configuration", func(c *ReceiverConfig) { c.RefuseZeroChecksum4 = true }, DropZeroChecksum}},
	"v0-ipv4-badcsum": {{"", nil, DropUDPChecksum}},
	"v0-ipv6":         {{"", nil, DropNone}},
	"v1-ipv4":         {{"", nil, DropNone}, {"security agreed", keys, DropMissing}},
	"v1-ipv6":         {{"", nil, DropNone}, {"not accepted", protocols(ProtoIPv4), DropProtocol}},
	"v0-ipv4-outer6":  {{"", nil, DropNone}},
	"v0-ipv6-outer6":  {{"", nil, DropNone}},
	"v1-ipv4-outer6":  {{"", nil, DropNone}},
	"v1-ipv6-outer6":  {{"", nil, DropNone}},
	"v0-ipv6-outer6-zerocsum": {
		{"zero checksums not configured", nil, DropZeroChecksum},
		{"pair and port configured", func(c *ReceiverConfig) {
			c.ZeroChecksum6Port = 6080
			c.ZeroChecksum6 = []AddrPair{{outer6.Src.Addr(), outer6.Dst.Addr()}}
		}, DropNone},
		{"another port", func(c *ReceiverConfig) {
			c.ZeroChecksum6Port = 6081
			c.ZeroChecksum6 = []AddrPair{{outer6.Src.Addr(), outer6.Dst.Addr()}}
		}, DropZeroChecksum},
		{"another pair", func(c *ReceiverConfig) {
			c.ZeroChecksum6Port = 6080
			c.ZeroChecksum6 = []AddrPair{{outer6.Dst.Addr(), outer6.Src.Addr()}}
		}, DropZeroChecksum},
	},
	"v0-tcp-stdpseudo": {
		{"TCP not accepted", nil, DropProtocol},
		{"ordinary checksum", inner(InnerPseudo, ProtoTCP), DropNone},
		{"TOU checksum", inner(InnerTOU, ProtoTCP), DropInnerChecksum},
		{"unchecked", inner(InnerUnchecked, ProtoTCP), DropNone},
	},
	"v0-tcp-toupseudo": {
		{"TCP not accepted", nil, DropProtocol},
		{"ordinary checksum", inner(InnerPseudo, ProtoTCP), DropInnerChecksum},
		{"TOU checksum", inner(InnerTOU, ProtoTCP), DropNone},
	},
	"v0-udp": {
		{"UDP not accepted", nil, DropProtocol},
		{"ordinary checksum", inner(InnerPseudo, ProtoUDP), DropNone},
	},
	"v0-icmp":         {{"ICMP not accepted", nil, DropProtocol}, {"accepted", protocols(ProtoICMP), DropNone}},
	"v0-gre-ipv4":     {{"GRE not accepted", nil, DropProtocol}, {"accepted", protocols(ProtoGRE), DropNone}},
	"v0-nonext":       {{"", nil, DropProtocol}},
	"v0-proto0":       {{"", nil, DropProtocol}},
	"v0-proto253":     {{"", nil, DropProtocol}},
	"v0-ipv4-innerv6": {{"", nil, DropInner}},
	"v0-ipv4-empty":   {{"", nil, DropInner}},
	"surplus-glb":     {{"", nil, DropNone}},
	"surplus-max":     {{"", nil, DropNone}},

	"linux-remcsum":           {{"", nil, DropFlag}},
	"linux-remcsum-zerocsum":  {{"", nil, DropFlag}},
	"linux-remcsum-start-oob": {{"", nil, DropFlag}},
	"linux-remcsum-short":     {{"", nil, DropFlag}},
	"linux-priv-none":         {{"", nil, DropFlag}},
	"linux-priv-unknown":      {{"", nil, DropFlag}},
	"linux-priv-hlen0":        {{"", nil, DropFlag}},
	"ext-remcsum":             {{"", nil, DropNone}},
	"ext-remcsum-offset-oob":  {{"", nil, DropRemoteChecksum}},
	"ext-group":               {{"", nil, DropNone}},
	"ext-group-hlen0":         {{"", nil, DropFields}},
	"ext-cookie64":            {{"", cookies("0102030405060708"), DropNone}, {"rotated", cookies("ffffffffffffffff", "0102030405060708"), DropNone}, {"another cookie", cookies("0102030405060709"), DropSecurity}, {"none agreed", nil, DropSecurity}},
	"ext-cookie128":           {{"", cookies("11111111111111111111111111111111"), DropNone}, {"another length", cookies("1111111111111111"), DropSecurity}},
	"ext-cookie256":           {{"", cookies("2222222222222222222222222222222222222222222222222222222222222222"), DropNone}},
	"ext-group-cookie":        {{"", cookies("deadbeefcafef00d"), DropNone}},
	"ext-hmac":                {{"", keys, DropNone}, {"another key", func(c *ReceiverConfig) { c.Keys = []HMACKey{{7, []byte("other")}} }, DropSecurity}, {"another key id", func(c *ReceiverConfig) { c.Keys = []HMACKey{{8, vectorKey.Key}} }, DropSecurityKey}, {"cookie agreed", cookies("0102030405060708"), DropSecurityKey}},
	"ext-hmac-bad":            {{"", keys, DropSecurity}},
	"ext-hmac-cover-oob":      {{"", keys, DropCoverage}},
	"ext-sec-reserved":        {{"", nil, DropReserved}},
	"ext-frag-1of2":           {{"", nil, DropNone}, {"no reassembly", func(c *ReceiverConfig) { c.Reassembly = nil }, DropFragment}, {"minimum first", func(c *ReceiverConfig) { c.Reassembly.MinFirst = 40 }, DropFragmentFirst}},
	"ext-frag-2of2":           {{"", nil, DropNone}},
	"ext-frag-res":            {{"", nil, DropFragmentReserved}},
	"ext-frag-not8":           {{"", nil, DropFragmentLength}},
	"ext-frag-proto":          {{"", nil, DropFragmentProto}},
	"ext-frag-first-mismatch": {{"", nil, DropFragmentProto}},
	"ext-frag-65535":          {{"", nil, DropFragmentSize}},
	"ext-dtls":                {{"", dtls, DropNone}, {"no DTLS", nil, DropTransform}},
	"ext-dtls-proto4":         {{"strict", dtls, DropTransformProto}, {"loose", both(dtls, func(c *ReceiverConfig) { c.LooseTransformProto = true }), DropNone}},
	"ext-transform-unknown":   {{"", dtls, DropTransform}},
	"ext-csum":                {{"", nil, DropNone}, {"required", func(c *ReceiverConfig) { c.Require = FieldChecksum }, DropNone}},
	"ext-csum-cover":          {{"", nil, DropNone}},
	"ext-csum-bad":            {{"", nil, DropChecksum}},
	"ext-csum-cover-oob":      {{"", nil, DropCoverage}},
	"ext-nac":                 {{"", inner(InnerPseudo, ProtoTCP), DropNone}},
	"ext-altcsum":             {{"", nil, DropNone}, {"GUE checksum required", func(c *ReceiverConfig) { c.Require = FieldChecksum }, DropMissing}},
	"ext-altcsum-cover":       {{"", nil, DropNone}},
	"ext-altcsum-bad":         {{"", nil, DropAltChecksum}},
	"ext-all-layout":          {{"nothing agreed", nil, DropSecurity}, {"all agreed, zero outer checksum", both(dtls, cookies("0000000000000002"), func(c *ReceiverConfig) { c.LooseTransformProto = true }), DropUnverified}},
	"flag-unassigned":         {{"as session flag without room", nil, DropFields}, {"linux", func(c *ReceiverConfig) { c.Profile = ProfileLinux }, DropFlag}, {"tou-drawn", func(c *ReceiverConfig) { c.Profile = ProfileTouDrawn }, DropFlag}},
	"hlen-overrun":            {{"", nil, DropHlen}},
	"short-3":                 {{"", nil, DropShort}},
	"empty":                   {{"", nil, DropEmpty}},
	"variant2":                {{"", nil, DropVariant}},
	"variant3":                {{"", nil, DropVariant}},
	"v1-ipver5":               {{"", nil, DropIPVersion}},
	"v1-ipver7":               {{"", nil, DropIPVersion}},
	"v1-trunc":                {{"", nil, DropInner}},
	"ctrl-0":                  {{"", nil, DropControl}},
	"ctrl-1":                  {{"", nil, DropControl}},
	"ctrl-4-ipv4":             {{"", nil, DropControl}},
	"ctrl-255":                {{"unknown experiment", nil, DropExID}, {"known experiment", func(c *ReceiverConfig) { c.ExIDs = []uint32{1, ExIDTougw} }, DropNone}},
	"ctrl-255-short":          {{"", func(c *ReceiverConfig) { c.ExIDs = []uint32{ExIDTougw} }, DropShort}},
	"tou-syn-S":               {{"as extensions-06: coverage of K", protocols(ProtoTCP), DropCoverage}, {"tou-drawn", drawn(InnerTOU), DropNone}},
	"tou-synack-SD":           {{"as extensions-06: coverage of K", protocols(ProtoTCP), DropCoverage}, {"tou-drawn", drawn(InnerTOU), DropNone}},
	"tou-data-D":              {{"as extensions-06: N and surplus", inner(InnerPseudo, ProtoTCP), DropInnerChecksum}, {"tou-drawn", drawn(InnerTOU), DropNone}},
	"ecn-ce-ect0":             {{"", nil, DropNone}},
	"ecn-ce-notect":           {{"", nil, DropECN}},
	"ecn-ect1-ect0":           {{"", nil, DropNone}},
	"ecn-notect-ce":           {{"", nil, DropNone}},
	"dscp-ef":                 {{"", nil, DropNone}},
}

func TestVectors(t *testing.T) {
	byName := make(map[string]vector)
	for _, v := range loadVectors(t) {
		byName[v.Name] = v
	}
	for _, v := range loadVectors(t) {
		cases := vectorCases[v.Name]
		if len(cases) == 0 {
			t.Errorf("%s: no case", v.Name)
		}
		for i, c := range cases {
			t.Run(v.Name+"/"+c.label, func(t *testing.T) {
				cfg := strict()
				if c.set != nil {
					c.set(&cfg)
				}
				r, err := NewReceiver(cfg)
				if err != nil {
					t.Fatal(err)
				}
				var m Message
				if v.Name == "ext-frag-2of2" { // completes its predecessor
					first := byName["ext-frag-1of2"]
					if d := r.Receive(epoch, first.outer(), first.bytes(t), &m); d != DropNone || !m.Held {
						t.Fatalf("first fragment: %v, held %t", d, m.Held)
					}
				}
				b := v.bytes(t)
				drop := r.Receive(epoch, v.outer(), b, &m)
				if drop != c.want {
					t.Fatalf("%s: %v, want %v", v.Meaning, drop, c.want)
				}
				// the first case of a vector is the one its verdict is for
				if i == 0 && v.Verdict != "policy" && (v.Verdict == "accept") != (drop == DropNone) {
					t.Errorf("%v, verdict %s", drop, v.Verdict)
				}
				if drop == DropNone {
					checkMessage(t, &v, &m)
				} else if m.Payload != nil || m.Has != 0 || m.Held {
					t.Errorf("dropped, but delivered %+v", m)
				}
			})
		}
	}
	if len(vectorCases) != len(byName) {
		t.Errorf("cases for %d vectors, want %d", len(vectorCases), len(byName))
	}
}

// checkMessage judges what was delivered, with code of its own.
func checkMessage(t *testing.T, v *vector, m *Message) {
	t.Helper()
	raw := v.bytes(t)
	if v.Name == "ext-frag-1of2" {
		if !m.Held || m.Payload != nil {
			t.Errorf("first fragment: held %t, %d bytes", m.Held, len(m.Payload))
		}
		return
	}
	switch m.Proto {
	case ProtoIPv4:
		checkIPv4(t, m.Payload)
	case ProtoIPv6:
		if len(m.Payload) < 40 || len(m.Payload) != 40+int(binary.BigEndian.Uint16(m.Payload[4:])) {
			t.Errorf("IPv6 packet of %d bytes", len(m.Payload))
		}
	}
	switch v.Name {
	case "ext-frag-2of2":
		if len(m.Payload) != 36 {
			t.Errorf("%d bytes reassembled, want 36", len(m.Payload))
		}
	case "ext-group-cookie":
		if m.Group != 42 {
			t.Errorf("group %d", m.Group)
		}
	case "ext-group":
		if m.Group != 0xabcdef || m.Has != FieldGroup {
			t.Errorf("group %#x, fields %#x", m.Group, m.Has)
		}
	case "ctrl-255":
		if !m.Control || m.ExID != ExIDTougw || !bytes.Equal(m.Payload, []byte{0, 0, 0, 1}) {
			t.Errorf("control message %+v", m)
		}
	case "ext-dtls", "ext-dtls-proto4":
		if m.Proto != ProtoIPv4 || len(m.Payload) != 28 {
			t.Errorf("protocol %d, %d bytes behind the transform", m.Proto, len(m.Payload))
		}
	case "ecn-ce-ect0", "ecn-notect-ce":
		if m.Payload[1]&3 != byte(CE) {
			t.Errorf("inner TOS %#x", m.Payload[1])
		}
	case "ecn-ect1-ect0":
		if m.Payload[1]&3 != byte(ECT1) {
			t.Errorf("inner TOS %#x", m.Payload[1])
		}
	case "dscp-ef":
		if m.Payload[1] != 0 {
			t.Errorf("inner TOS %#x, want the inner value", m.Payload[1])
		}
	case "ext-nac":
		// now right for the addresses that arrived
		pseudo := unhex("c0000201c000020200060014")
		if naiveSum(append(pseudo, m.Payload...)) != 0xffff {
			t.Error("TCP checksum wrong after correction")
		}
	case "ext-remcsum", "linux-remcsum", "linux-remcsum-zerocsum":
		ip := m.Payload
		pseudo := append(append([]byte{}, ip[12:20]...), 0, 17, 0, byte(len(ip)-20))
		if naiveSum(append(pseudo, ip[20:]...)) != 0xffff {
			t.Error("inner UDP checksum wrong after completion")
		}
	case "tou-syn-S":
		if m.Has != FieldSource || m.Source != 0x1122334455667788 {
			t.Errorf("fields %#x source %#x", m.Has, m.Source)
		}
	case "tou-synack-SD":
		if m.Source != 0x99aabbccddeeff00 || m.Destination != 0x1122334455667788 {
			t.Errorf("source %#x destination %#x", m.Source, m.Destination)
		}
	case "tou-data-D":
		if m.Has != FieldDestination || m.Destination != 0x99aabbccddeeff00 {
			t.Errorf("fields %#x destination %#x", m.Has, m.Destination)
		}
	default:
		if !bytes.HasSuffix(raw, m.Payload) || len(m.Payload) == 0 {
			t.Errorf("delivered %x of %x", m.Payload, raw)
		}
	}
}

func checkIPv4(t *testing.T, p []byte) {
	t.Helper()
	if len(p) < 20 || len(p) != int(binary.BigEndian.Uint16(p[2:])) {
		t.Fatalf("IPv4 packet of %d bytes", len(p))
	}
	if naiveSum(p[:20]) != 0xffff {
		t.Errorf("IPv4 header checksum of %x", p[:20])
	}
	if p[9] == 1 && naiveSum(p[20:]) != 0xffff {
		t.Errorf("ICMP checksum of %x", p[20:])
	}
}

// naiveSum is RFC 1071 word by word.
func naiveSum(b []byte) uint16 {
	var s uint32
	for i, c := range b {
		if i%2 == 0 {
			s += uint32(c) << 8
		} else {
			s += uint32(c)
		}
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// TestVectorsLikeLinux configures a receiver to what Debian's 6.1 kernel is
// willing to do and expects the kernel's own outcome for every vector.
func TestVectorsLikeLinux(t *testing.T) {
	for _, v := range loadVectors(t) {
		r, err := NewReceiver(ReceiverConfig{
			Profile:                  ProfileLinux,
			Protocols:                []Protocol{ProtoICMP, ProtoIPv4, ProtoTCP, ProtoUDP, ProtoIPv6, ProtoGRE},
			ZeroChecksum6:            []AddrPair{{outer6.Src.Addr(), outer6.Dst.Addr()}},
			ZeroChecksum6Port:        6080,
			UnverifiedRemoteChecksum: true,
			InnerChecksum:            InnerPseudo,
		})
		if err != nil {
			t.Fatal(err)
		}
		var m Message
		drop := r.Receive(epoch, v.outer(), v.bytes(t), &m)
		delivered := v.Linux61 == "delivered" || v.Linux61 == "delivered, plain reply"
		if delivered != (drop == DropNone) {
			t.Errorf("%s: %v, kernel: %s", v.Name, drop, v.Linux61)
		}
		if drop == DropNone {
			checkMessage(t, &v, &m)
		}
	}
}

// TestVectorLayouts checks the worked decodes of the header fields.
func TestVectorLayouts(t *testing.T) {
	want := map[string]struct {
		profile Profile
		n       int
		h       Header
	}{
		"v0-ipv4": {ProfileTougw, 4, Header{ProtoCtype: ProtoIPv4}},
		"ext-all-layout": {ProfileTougw, 48, Header{
			ProtoCtype:     ProtoIPv4,
			Has:            tougwFields &^ (FieldSource | FieldDestination | FieldAddresses),
			Group:          1,
			Security:       unhex("0000000000000002"),
			Fragment:       Fragment{OrigProto: 4, ID: 3},
			Transform:      Transform{Type: 128, ProtoCtype: 4},
			RemoteChecksum: RemoteChecksum{Start: 20, Offset: 22},
			Checksum:       Checksum{Value: 0xc0f0},
			AltChecksum:    AltChecksum{CRC: 0x65ea4b16},
		}},
		"ext-hmac": {ProfileTougw, 44, Header{
			ProtoCtype: ProtoIPv4, Has: FieldSecurity,
			Security: unhex("0000000700000008b33f9a9bc9c69b78d7cc5d2b7fd33e97ccd7ecd67a2423d8edf009760da83ef0"),
		}},
		"ext-frag-1of2": {ProfileTougw, 12, Header{
			ProtoCtype: ProtoIPv4, Has: FieldFragment,
			Fragment: Fragment{More: true, OrigProto: 4, ID: 0x0102030405},
		}},
		"ext-frag-2of2": {ProfileTougw, 12, Header{
			ProtoCtype: ProtoNone, Has: FieldFragment,
			Fragment: Fragment{Offset: 3, OrigProto: 4, ID: 0x0102030405},
		}},
		"ext-frag-res": {ProfileTougw, 12, Header{
			ProtoCtype: ProtoIPv4, Has: FieldFragment,
			Fragment: Fragment{Reserved: 1, More: true, OrigProto: 4, ID: 0x0102030406},
		}},
		"ext-dtls": {ProfileTougw, 8, Header{
			ProtoCtype: ProtoNone, Has: FieldTransform, Transform: Transform{Type: 1, ProtoCtype: 4},
		}},
		"surplus-glb": {ProfileTougw, 12, Header{ProtoCtype: ProtoIPv4, Surplus: unhex("00000001c0000263")}},
		"linux-remcsum": {ProfileLinux, 12, Header{
			ProtoCtype: ProtoIPv4, Has: FieldPrivate | FieldRemoteChecksum, PrivateFlags: 0x80000000,
			RemoteChecksum: RemoteChecksum{Start: 20, Offset: 26},
		}},
		"linux-priv-none": {ProfileLinux, 8, Header{ProtoCtype: ProtoIPv4, Has: FieldPrivate}},
		"tou-synack-SD": {ProfileTouDrawn, 20, Header{
			ProtoCtype: ProtoTCP, Has: FieldSource | FieldDestination,
			Source: 0x99aabbccddeeff00, Destination: 0x1122334455667788,
		}},
		"tou-data-D": {ProfileTougw, 12, Header{
			ProtoCtype: ProtoTCP, Has: FieldNATChecksum,
			NATChecksum: NATChecksum{Value: 0x99aa, Reserved: 0xbbcc}, Surplus: unhex("ddeeff00"),
		}},
		"ctrl-255": {ProfileTougw, 4, Header{Control: true, ProtoCtype: ControlExperimental}},
	}
	for _, v := range loadVectors(t) {
		w, ok := want[v.Name]
		if !ok {
			continue
		}
		var h Header
		n, drop := h.Decode(w.profile, v.bytes(t))
		if drop != DropNone || n != w.n {
			t.Errorf("%s: %d bytes, %v; want %d", v.Name, n, drop, w.n)
		}
		if !equalHeaders(&h, &w.h) {
			t.Errorf("%s: %+v, want %+v", v.Name, h, w.h)
		}
	}
}

// equalHeaders compares by value; nil and empty byte fields are equal.
func equalHeaders(a, b *Header) bool {
	return a.Control == b.Control && a.ProtoCtype == b.ProtoCtype && a.Has == b.Has &&
		a.PrivateFlags == b.PrivateFlags && a.Group == b.Group && bytes.Equal(a.Security, b.Security) &&
		a.Fragment == b.Fragment && a.Transform == b.Transform && a.RemoteChecksum == b.RemoteChecksum &&
		a.Checksum == b.Checksum && a.NATChecksum == b.NATChecksum && a.AltChecksum == b.AltChecksum &&
		a.Source == b.Source && a.Destination == b.Destination &&
		bytes.Equal(a.Addresses, b.Addresses) && bytes.Equal(a.Surplus, b.Surplus)
}

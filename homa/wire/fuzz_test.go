package wire

import (
	"bytes"
	"reflect"
	"testing"

	captures "github.com/tougw/tougw/test/vectors/homa"
)

func FuzzData(f *testing.F)       { fuzz(f, Data) }
func FuzzGrant(f *testing.F)      { fuzz(f, Grant) }
func FuzzResend(f *testing.F)     { fuzz(f, Resend) }
func FuzzRPCUnknown(f *testing.F) { fuzz(f, RPCUnknown) }
func FuzzBusy(f *testing.F)       { fuzz(f, Busy) }
func FuzzCutoffs(f *testing.F)    { fuzz(f, Cutoffs) }
func FuzzFreeze(f *testing.F)     { fuzz(f, Freeze) }
func FuzzNeedAck(f *testing.F)    { fuzz(f, NeedAck) }
func FuzzAck(f *testing.F)        { fuzz(f, Ack) }

// fuzz takes what it gets for a packet of type t, in every version.
func fuzz(f *testing.F, t Type) {
	for _, v := range allVersions {
		full := v.Append(nil, &Packet{Type: t, SenderID: 2, Length: 100, Offset: 10, RangeLength: ResendAllLength, Data: []byte("data")})
		f.Add(full)
		f.Add(full[:v.minSize(t)])
		f.Add(full[:v.minSize(t)-1])
		f.Add(append(full, 0xff, 0))
	}
	addCaptured(f, t)
	f.Fuzz(func(test *testing.T, b []byte) {
		b = bytes.Clone(b)
		if len(b) > offType {
			b[offType] = byte(t)
		}
		for _, v := range allVersions {
			Detect(v.IPProtocol(), b)
			checkRoundTrip(test, v, b)
		}
	})
}

// addCaptured takes a short packet of type t from each capture as a seed.
func addCaptured(f *testing.F, t Type) {
	all, err := captures.All()
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range all {
		frames, err := c.Frames()
		if err != nil {
			f.Fatal(err)
		}
		for _, frame := range frames {
			b := frame.Payload
			if !frame.ICMP() && Type(b[offType]) == t && len(b) == frame.Length && len(b) <= 200 {
				f.Add(b)
				break
			}
		}
	}
}

// checkRoundTrip: what decodes encodes again to the same bytes, and its
// canonical form holds the same packet.
func checkRoundTrip(t *testing.T, v Version, b []byte) {
	var p, q Packet
	var x Ignored
	if v.DecodeExact(&p, &x, b) != nil {
		return
	}
	if got := v.AppendExact(nil, &p, &x); !bytes.Equal(got, b) {
		t.Fatalf("%v exact:\n got %x\nwant %x\n%+v\n%+v", v, got, b, p, x)
	}
	if err := v.Decode(&q, v.Append(nil, &p)); err != nil {
		t.Fatalf("%v canonical form: %v", v, err)
	}
	if !bytes.Equal(p.Data, q.Data) {
		t.Fatalf("%v data %x, want %x", v, q.Data, p.Data)
	}
	clear(p.Acks[p.NumAcks:])
	p.Data, q.Data = nil, nil
	if !reflect.DeepEqual(p, q) {
		t.Fatalf("%v canonical form:\n got %+v\nwant %+v", v, q, p)
	}
}

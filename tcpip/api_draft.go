package tcpip

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/tougw/tougw/internal/packet"
)

// Draft of the exported names; bodies follow.

var errDraft = errors.New("tcpip: draft")

type Ready uint8

const (
	Readable Ready = 1 << iota
	Writable
	Hup
)

type Stream struct{}

type StreamInfo struct {
	State         string
	RTT, RTTVar   time.Duration
	Cwnd          uint32
	Retransmits   uint64
	Read, Written uint64
	RecvBuffer    int
	SendBuffer    int
}

func (s *Stream) Read(p []byte) (int, error)                           { return 0, errDraft }
func (s *Stream) Write(p []byte) (int, error)                          { return 0, errDraft }
func (s *Stream) CloseWrite() error                                    { return errDraft }
func (s *Stream) Reset()                                               {}
func (s *Stream) Close() error                                         { return errDraft }
func (s *Stream) SetNotify(fn func(ev Ready))                          {} // reports the current state before it returns
func (s *Stream) SetBuffers(recv, send int)                            {}
func (s *Stream) SetKeepalive(idle, interval time.Duration, count int) {}
func (s *Stream) Outstanding() int                                     { return 0 }   // written, not yet acknowledged
func (s *Stream) Err() error                                           { return nil } // terminal error; nil while open and after an orderly end
func (s *Stream) Local() netip.AddrPort                                { return netip.AddrPort{} }
func (s *Stream) Remote() netip.AddrPort                               { return netip.AddrPort{} }
func (s *Stream) Info() StreamInfo                                     { return StreamInfo{} }

type Pending struct{}

func (p *Pending) Src() netip.AddrPort                         { return netip.AddrPort{} }
func (p *Pending) Dst() netip.AddrPort                         { return netip.AddrPort{} }
func (p *Pending) Session() uint64                             { return 0 }
func (p *Pending) Done() <-chan struct{}                       { return nil } // closed when the opener gave up
func (p *Pending) Accept(ctx context.Context) (*Stream, error) { return nil, errDraft }
func (p *Pending) Refuse(reason error)                         {}

// Device is what an Edge reads captured packets from and writes its own to.
type Device interface {
	Queues() int
	MTU() int
	Read(q int, ps []packet.In) (int, error)
	Write(q int, ps []packet.Out) (int, error)
}

type EdgeConfig struct {
	OnFlow              func(*Pending) // own goroutine each
	MaxPending          int            // 0: 4096
	MaxPendingPerSource int            // 0: 1024
	TSO                 bool           // the device takes GSO packets and partial checksums
	Buffers             BufferConfig
	Logger              *slog.Logger
}

// BufferConfig sizes the buffers of each stream, in bytes; zero fields take defaults.
type BufferConfig struct {
	InitialRecv, InitialSend int
	MaxRecv, MaxSend         int
}

type Edge struct{}

func NewEdge(cfg EdgeConfig, dev Device) (*Edge, error) { return nil, errDraft }
func (e *Edge) Run(ctx context.Context) error           { return errDraft } // returns when ctx ends and the device's readers were unblocked by its Close
func (e *Edge) Close() error                            { return errDraft }
func (e *Edge) Stats() EdgeStats                        { return EdgeStats{} }

type EdgeStats struct{}

type TunnelConfig struct {
	OnFlow     func(*Pending)       // own goroutine each
	Admit      func(id uint64) bool // asked once for each SYN that would open a flow; nil admits
	MTU        int                  // of the NIC, at least 1280; 0: 1420
	MaxSegment int                  // TCP payload of the largest Segment; 0: as much as fits 64 KiB
	MaxPending int                  // 0: 16384
	Buffers    BufferConfig
	Logger     *slog.Logger
}

type Tunnel struct{}

func NewTunnel(cfg TunnelConfig, out func(segs []*Segment)) (*Tunnel, error) { return nil, errDraft }
func (t *Tunnel) Dial(ctx context.Context, id uint64, localPort, remotePort uint16) (*Stream, error) {
	return nil, errDraft
}
func (t *Tunnel) NewInjector() *Injector        { return nil }
func (t *Tunnel) Abort(id uint64, reason error) {}
func (t *Tunnel) Run(ctx context.Context) error { return errDraft } // blocks; Close ends it
func (t *Tunnel) Close() error                  { return errDraft } // resets every stream, waits for the stack's goroutines
func (t *Tunnel) Stats() TunnelStats            { return TunnelStats{} }

type TunnelStats struct{}

type Injector struct{}

func (i *Injector) Inject(id uint64, segment []byte) {}
func (i *Injector) Flush()                           {}

// Segment is one TCP segment of up to 64 KiB on its way out; out takes it and must Release it.
type Segment struct{}

func (s *Segment) Session() uint64    { return 0 }
func (s *Segment) Flags() uint8       { return 0 }
func (s *Segment) Len() int           { return 0 }
func (s *Segment) HeaderLen() int     { return 0 }
func (s *Segment) Cut(dst []byte) int { return 0 }
func (s *Segment) Release()           {}

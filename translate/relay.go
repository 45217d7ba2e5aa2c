package translate

import (
	"context"
	"net/netip"
	"time"

	"github.com/tougw/tougw/homa"
	"github.com/tougw/tougw/homa/rpc"
)

// Relay passes requests that come by Homa from a peer on to Homa servers, and keeps
// account of them as Forward and Reverse do of theirs. Its methods are safe for
// concurrent use.
type Relay struct {
	name   string
	tracer *ruleTracer
	counters
}

// NewRelay returns a Relay that records name as a rule. A tracer may be shared, and
// nil.
func NewRelay(name string, tracer *Tracer) *Relay {
	return &Relay{name: name, tracer: tracer.of(name)}
}

// Serve answers a request of a peer with what the server at to answers, which open
// calls, as [rpc.Relay] does. The error is for the handler to return.
func (r *Relay) Serve(ctx context.Context, req *rpc.Request, w *rpc.ResponseWriter, peer string, to netip.AddrPort, open rpc.Opener) error {
	r.outstanding.Add(1)
	defer r.outstanding.Add(-1)
	begun := time.Now()
	told, err := rpc.Relay(ctx, req, w, func(ctx context.Context, _ netip.AddrPort, length int) (*rpc.Call, error) {
		return open(ctx, to, length)
	})
	r.record(ctx, req, &told, err, begun, peer, to)
	return err
}

// record counts a request that has ended, and tells of it if anybody is interested.
func (r *Relay) record(ctx context.Context, req *rpc.Request, told *rpc.Relayed, err error, begun time.Time, peer string, to netip.AddrPort) {
	end := time.Now()
	if !told.Sent.IsZero() {
		r.bytesIn.Add(uint64(req.Len()))
	}
	result, text := OK, ""
	switch {
	case err == nil:
		r.bytesOut.Add(uint64(told.Response))
	case ctx.Err() != nil:
		result, text = Aborted, err.Error()
	default:
		result, text = resultOf(faultOf(err)), err.Error()
	}
	r.ended(result)
	total := end.Sub(begun)
	if !r.tracer.wants(total, result, end) {
		return
	}
	rec := &Record{
		Time: begun, Rule: r.name, Direction: "relay", Server: to, Peer: peer,
		RequestBytes: int64(req.Len()), ResponseBytes: int64(told.Response),
		Total: total, Queue: total, Result: result, Error: text,
	}
	stats := req.Stats()
	if told.Call != nil {
		rec.RelayID = idOf(told.Call.ID())
		stats = both(told.Call.Stats(), stats)
		rec.Queue = told.Opened.Sub(begun)
	}
	rec.homa(req.ID(), stats)
	switch {
	case told.Sent.IsZero():
	case told.Answered.IsZero():
		rec.Service = end.Sub(told.Sent)
	default:
		rec.Service = told.Answered.Sub(told.Sent)
	}
	rec.Transport = total - rec.Queue - rec.Service
	r.tracer.add(rec)
}

// both are the traces of a relay's two RPCs as one, with the priorities of call.
func both(call, request homa.RPCStats) homa.RPCStats {
	call.GrantsSent += request.GrantsSent
	call.GrantsReceived += request.GrantsReceived
	call.ResendsSent += request.ResendsSent
	call.ResendsReceived += request.ResendsReceived
	call.BusyReceived += request.BusyReceived
	call.BytesResent += request.BytesResent
	return call
}

// Stats returns the counters. BytesIn are those of requests, BytesOut those of
// responses.
func (r *Relay) Stats() Stats { return r.stats() }

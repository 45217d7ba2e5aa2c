package gateway

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/translate"
)

// errNoTranslation answers those who want to see requests where there are none.
var errNoTranslation = errors.New("this instance does not translate: its configuration has no translate rule")

// LastRequests implements admin.Source.
func (g *Gateway) LastRequests(f admin.RequestFilter) ([]admin.Request, error) {
	filter, err := g.traceFilter(f)
	if err != nil {
		return nil, err
	}
	kept := g.translate.tracer.Last(filter)
	requests := make([]admin.Request, 0, len(kept))
	for _, r := range slices.Backward(kept) {
		requests = append(requests, requestOf(&r))
	}
	return requests, nil
}

// Requests implements admin.Source.
func (g *Gateway) Requests(f admin.RequestFilter) (admin.RequestFeed, error) {
	filter, err := g.traceFilter(f)
	if err != nil {
		return nil, err
	}
	sub, err := g.translate.tracer.Subscribe(filter)
	if err != nil {
		return nil, err
	}
	return feed{sub}, nil
}

// traceFilter is a filter in the words of package translate.
func (g *Gateway) traceFilter(f admin.RequestFilter) (translate.Filter, error) {
	if g.translate.tracer == nil {
		return translate.Filter{}, errNoTranslation
	}
	addr, prefix, err := admin.CheckRequestAddr(f.Addr)
	return translate.Filter{
		Addr: addr, Prefix: prefix, Rule: f.Rule, ID: f.ID, MinTotal: f.MinLatency, Failed: f.Errors,
	}, err
}

// feed is a subscription as an admin.RequestFeed.
type feed struct{ sub *translate.Subscription }

// Next implements admin.RequestFeed.
func (f feed) Next(ctx context.Context) (admin.Request, error) {
	select {
	case r, ok := <-f.sub.C:
		if !ok {
			return admin.Request{}, io.EOF
		}
		return requestOf(&r), nil
	case <-ctx.Done():
		return admin.Request{}, ctx.Err()
	}
}

// Waiting implements admin.RequestFeed.
func (f feed) Waiting() bool { return len(f.sub.C) > 0 }

// Lost implements admin.RequestFeed.
func (f feed) Lost() uint64 { return f.sub.Dropped() }

// Close implements admin.RequestFeed.
func (f feed) Close() { f.sub.Close() }

func requestOf(r *translate.Record) admin.Request {
	return admin.Request{
		ID: r.ID, Time: r.Time, Rule: r.Rule, Direction: r.Direction, Framing: r.Framing, Name: r.Name,
		Client: r.Client.String(), Server: r.Server.String(), Peer: r.Peer,
		RequestBytes: r.RequestBytes, ResponseBytes: r.ResponseBytes,
		Total: r.Total, Queue: r.Queue, Service: r.Service, Transport: r.Transport,
		UnscheduledPriority: r.UnscheduledPriority, ScheduledPriority: r.ScheduledPriority,
		GrantsSent: r.GrantsSent, GrantsReceived: r.GrantsReceived, ResendsSent: r.ResendsSent, ResendsReceived: r.ResendsReceived,
		BusyReceived: r.BusyReceived, BytesResent: r.BytesResent,
		Retries: r.Retries, Result: string(r.Result), Error: r.Error,
	}
}

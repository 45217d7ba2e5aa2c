package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/tougw/tougw/internal/admin"
	"github.com/tougw/tougw/translate"
)

// errNoTranslation answers those who want to see requests where there are none.
var errNoTranslation = errors.New("this instance does not translate: its configuration has no translate rule, and no accept with action homa")

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
	if err := g.checkRule(f.Rule); err != nil {
		return translate.Filter{}, err
	}
	addr, prefix, err := admin.CheckRequestAddr(f.Addr)
	if err != nil {
		return translate.Filter{}, err
	}
	id, err := admin.CheckRequestID(f.ID)
	return translate.Filter{
		Addr: addr, Prefix: prefix, Rule: f.Rule, ID: id, MinTotal: f.MinLatency, Failed: f.Errors,
	}, err
}

// checkRule refuses a name that no rule has; empty is all rules.
func (g *Gateway) checkRule(name string) error {
	var names []string
	for _, r := range g.translate.rules {
		if names = append(names, r.name); r.name == name {
			return nil
		}
	}
	if name == "" {
		return nil
	}
	return fmt.Errorf("%w: %q; this instance has %s", admin.ErrNoRule, name, strings.Join(names, ", "))
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

// addrText is an address, or nothing where there is none.
func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func requestOf(r *translate.Record) admin.Request {
	return admin.Request{
		ID: r.ID, RelayID: r.RelayID, Time: r.Time, Rule: r.Rule, Direction: r.Direction, Framing: r.Framing, Name: r.Name,
		Client: addrText(r.Client), Server: addrText(r.Server), Peer: r.Peer,
		RequestBytes: r.RequestBytes, ResponseBytes: r.ResponseBytes,
		Total: r.Total, Queue: r.Queue, Service: r.Service, Transport: r.Transport,
		UnscheduledPriority: r.UnscheduledPriority, ScheduledPriority: r.ScheduledPriority,
		GrantsSent: r.GrantsSent, GrantsReceived: r.GrantsReceived, ResendsSent: r.ResendsSent, ResendsReceived: r.ResendsReceived,
		BusyReceived: r.BusyReceived, BytesResent: r.BytesResent,
		Retries: r.Retries, Result: string(r.Result), Error: r.Error,
	}
}

package translate

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tougw/tougw/homa"
)

// idOf is Record.ID of the RPC with an id, which may be that of either side.
func idOf(id uint64) string { return fmt.Sprintf("%016x", id&^1) }

// homa fills in what an RPC's trace tells.
func (r *Record) homa(id uint64, s homa.RPCStats) {
	r.ID = idOf(id)
	r.UnscheduledPriority, r.ScheduledPriority = s.UnscheduledPriority, s.ScheduledPriority
	r.GrantsSent, r.GrantsReceived = s.GrantsSent, s.GrantsReceived
	r.ResendsSent, r.ResendsReceived = s.ResendsSent, s.ResendsReceived
	r.BusyReceived, r.BytesResent = s.BusyReceived, s.BytesResent
}

// end is when the request was over.
func (r *Record) end() time.Time { return r.Time.Add(r.Total) }

// matches reports whether the filter selects r.
func (f *Filter) matches(r *Record) bool {
	client, server := r.Client.Addr(), r.Server.Addr()
	switch {
	case f.Addr.IsValid() && !sameAddr(f, r):
	case f.Prefix.IsValid() && !f.Prefix.Contains(client.Unmap()) && !f.Prefix.Contains(server.Unmap()):
	case f.Rule != "" && f.Rule != r.Rule:
	case f.ID != "" && f.ID != r.ID && f.ID != r.RelayID:
	case r.Total < f.MinTotal:
	case f.Failed && r.Result == OK:
	case f.Result != "" && f.Result != r.Result:
	default:
		return true
	}
	return false
}

// sameAddr reports whether the address of a filter is one of the two of r.
func sameAddr(f *Filter, r *Record) bool {
	is := func(a netip.AddrPort) bool {
		return a.Addr().Unmap() == f.Addr.Addr().Unmap() && (f.Addr.Port() == 0 || f.Addr.Port() == a.Port())
	}
	return is(r.Client) || is(r.Server)
}

// service is how long a server had a request, which was sent at a time and answered at
// another or, if that is 0, not before end.
func service(sent, answered, end time.Duration) time.Duration {
	if answered == 0 {
		answered = end
	}
	if sent == 0 || answered < sent {
		return 0
	}
	return answered - sent
}

package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"

	"github.com/tougw/tougw/dtls"
	"github.com/tougw/tougw/internal/udp"
	"github.com/tougw/tougw/tunnel"
)

// association joins the events of one dtls.Endpoint to the node: the endpoint
// of a dialled peer, or the one that listens (peer nil).
type association struct {
	gw       *Gateway
	peer     *tunnel.Peer
	params   dtls.DialParams
	endpoint *dtls.Endpoint

	mu    sync.RWMutex
	links map[*dtls.Association]*tunnel.Link
}

// NewReceiver implements dtls.Events.
func (a *association) NewReceiver() dtls.Receiver {
	return &receiver{assoc: a, node: a.gw.node.NewReceiver(a.gw.stack.NewInjector())}
}

// Established implements dtls.Events.
func (a *association) Established(s *dtls.Association) {
	link := a.gw.node.Attach(s, identityOf(s), a.peer)
	a.mu.Lock()
	a.links[s] = link
	a.mu.Unlock()
}

// candidate takes a path on which a peer was heard to its link.
func (a *association) candidate(s *dtls.Association, p dtls.Path) {
	if l := a.link(s); l != nil {
		l.Candidate(p)
	}
}

// usage tells the node how far the keys of an association are used up.
func usage(s tunnel.Secure) (bytes uint64, share float64) {
	a, ok := s.(*dtls.Association)
	if !ok {
		return 0, 0
	}
	u := a.Usage()
	return max(u.BytesIn, u.BytesOut), u.Share()
}

// Closed implements dtls.Events.
func (a *association) Closed(s *dtls.Association, err error) {
	a.mu.Lock()
	link := a.links[s]
	delete(a.links, s)
	a.mu.Unlock()
	if link != nil {
		link.Detach(err)
	}
}

func (a *association) link(s *dtls.Association) *tunnel.Link {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.links[s]
}

func identityOf(s *dtls.Association) tunnel.Identity {
	id := s.Identity()
	return tunnel.Identity{Key: id.Kind.String() + ":" + id.String(), Names: id.Names}
}

// receiver takes opened records of one socket to the node. The association of
// the run before is remembered, so that the table is asked once a change.
type receiver struct {
	assoc *association
	node  *tunnel.Receiver
	last  *dtls.Association
	link  *tunnel.Link
}

// Receive implements dtls.Receiver.
func (r *receiver) Receive(s *dtls.Association, records [][]byte) {
	if s != r.last {
		r.last, r.link = s, r.assoc.link(s)
	}
	if r.link != nil {
		r.node.Receive(r.link, records)
	}
}

// Flush implements dtls.Receiver.
func (r *receiver) Flush() {
	r.node.Flush()
	r.last, r.link = nil, nil // an ended association is not kept alive
}

// dial makes an association with a peer from a socket of its own.
func (a *association) dial(ctx context.Context, _ *tunnel.Peer, endpoint string) (*tunnel.Link, error) {
	remote, err := netip.ParseAddrPort(endpoint)
	if err != nil {
		return nil, err
	}
	bind := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if remote.Addr().Is6() {
		bind = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	g := a.gw
	sock, err := g.listenUDP(bind)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Associations.HandshakeTimeout)
	defer cancel()
	s, err := a.endpoint.Dial(ctx, sock, remote, a.params)
	if err != nil {
		return nil, err
	}
	g.noteSocket(a.peer.Name(), sock)
	link := a.link(s)
	if link == nil {
		return nil, errors.New("association ended at once")
	}
	return link, nil
}

// openListeners opens the sockets of listen: one for each processor and
// address, so that the kernel spreads peers over the cores.
func (g *Gateway) openListeners() ([]dtls.Socket, error) {
	var socks []dtls.Socket
	for _, bind := range g.cfg.Listen {
		group, err := g.listenGroup(bind)
		if err != nil {
			closeAllSockets(socks)
			return nil, fmt.Errorf("listen: %w", err)
		}
		socks = append(socks, group...)
	}
	for _, s := range socks {
		g.noteSocket("listen", s)
	}
	return socks, nil
}

// listenGroup opens the sockets of one address. A peer that has moved reaches the
// one that it was served by, if the kernel can steer.
func (g *Gateway) listenGroup(bind netip.AddrPort) ([]dtls.Socket, error) {
	if g.opt.Listen != nil {
		s, err := g.opt.Listen(bind)
		if err != nil {
			return nil, err
		}
		return []dtls.Socket{s}, nil
	}
	if err := free(bind); err != nil {
		return nil, err
	}
	cfg := g.socketConfig(bind)
	cfg.Steer = dtls.Steering()
	conns, err := udp.ListenGroup(cfg, runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	socks := make([]dtls.Socket, 0, len(conns))
	for _, c := range conns {
		socks = append(socks, c)
	}
	return socks, nil
}

// free reports whether nobody listens at an address. Sockets that share it by
// SO_REUSEPORT would not notice another daemon, which would take some of the
// peers.
func free(bind netip.AddrPort) error {
	s, err := udp.Listen(udp.Config{Bind: bind})
	if err != nil {
		return err
	}
	return s.Close()
}

func closeAllSockets(socks []dtls.Socket) {
	for _, s := range socks {
		_ = s.Close() // nothing was sent yet
	}
}

type socketEntry struct {
	role string
	sock dtls.Socket
}

// noteSocket remembers a socket for status; a dialled peer has one, the newest.
func (g *Gateway) noteSocket(role string, s dtls.Socket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if role != "listen" {
		for i := range g.sockets {
			if g.sockets[i].role == role {
				g.retire(g.sockets[i].sock)
				g.sockets[i].sock = s
				return
			}
		}
	}
	g.sockets = append(g.sockets, socketEntry{role, s})
}

// retire keeps the drops of a socket that is replaced: counters only grow.
// g.mu is held.
func (g *Gateway) retire(s dtls.Socket) {
	c, ok := s.(socketStats)
	if !ok {
		return
	}
	f, n := &g.former, c.Stats()
	f.RecvDropOverflow += n.RecvDropOverflow
	f.RecvDropTruncated += n.RecvDropTruncated
	f.RecvErrors += n.RecvErrors
	f.SendDropTooBig += n.SendDropTooBig
	f.SendDropNoBufs += n.SendDropNoBufs
	f.SendDropWait += n.SendDropWait
	f.SendDropOther += n.SendDropOther
}

// capabilities is what a real UDP socket can tell of itself.
type capabilities interface{ Capabilities() udp.Capabilities }

func (g *Gateway) associations() []*association {
	all := g.dials
	if g.listen != nil {
		all = append(all[:len(all):len(all)], g.listen)
	}
	return all
}

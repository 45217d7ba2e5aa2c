package gateway

import (
	"fmt"

	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/internal/policy"
)

var policyActions = map[config.Action]policy.Action{
	config.ActionReject: policy.Reject,
	config.ActionTCP:    policy.TCP,
	config.ActionHoma:   policy.Homa,
	config.ActionDirect: policy.Direct,
	config.ActionTunnel: policy.Tunnel,
}

// buildPolicy makes the tables of rules and of accept.
func (g *Gateway) buildPolicy() error {
	var rules, accept []policy.Rule
	for _, r := range g.cfg.Rules {
		rules = append(rules, policy.Rule{
			Dst: r.Dst, Ports: policyPorts(r.Ports), Action: policyActions[r.Action], Target: r.Peer,
		})
	}
	for _, a := range g.cfg.Accept {
		accept = append(accept, policy.Rule{
			Peer: a.Peer.String(), Dst: a.Dst, Ports: policyPorts(a.Ports), Action: policyActions[a.Action],
		})
	}
	var err error
	if g.rules, err = policy.NewCapture(rules, policy.Reject); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	g.guard = policy.NewGuard(g.opt.LocalAddrs)
	if g.accept, err = policy.NewAccept(accept, g.guard); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return nil
}

func policyPorts(in []config.PortRange) []policy.Ports {
	out := make([]policy.Ports, 0, len(in))
	for _, p := range in {
		out = append(out, policy.Ports{First: p.First, Last: p.Last})
	}
	return out
}

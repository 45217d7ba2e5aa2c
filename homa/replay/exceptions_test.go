package replay

import (
	"slices"

	"github.com/tougw/tougw/homa/wire"
)

// exception is a way in which the engine may differ from the recorded host.
type exception struct {
	name, reason string
	applies      func(s *scene, d *difference) bool
}

// exceptions are all there are. One that nothing needs any more fails the test.
var exceptions = []exception{
	{
		"FREEZE",
		"It stops the module's time trace for debugging. The engine has none, and receivers ignore it.",
		func(_ *scene, d *difference) bool { return d.kind == missing && d.homa.Type == wire.Freeze },
	},
	{
		"fields that stripped hosts leave at 0",
		"They send incoming 0 and priority 0 as they know neither; they read neither, so the engine's values do nothing.",
		func(s *scene, d *difference) bool {
			return s.version == wire.Stripped && d.kind == other && d.homa.Type == wire.Data && within(d.fields, "incoming", "priority")
		},
	},
	{
		"closed socket",
		"The recorded client closed its socket, so its kernel answered NEED_ACK with ICMP. The engine has no sockets: it has the response and says so.",
		func(s *scene, d *difference) bool {
			return s.is("client_closes_early") && s.role == client &&
				(d.kind == missing && d.homa.Type == 0 || d.kind == extra && d.homa.Type == wire.Ack)
		},
	},
	{
		"which ACK holds which RPC",
		"The engine acknowledges when a response is whole, the module when its application takes it, in another order. compareAcks sees that all are acknowledged.",
		func(s *scene, d *difference) bool {
			return s.is("ack_overflow") && s.role == client && d.homa.Type == wire.Ack && d.kind != behind
		},
	},
	{
		"RESEND for other grants than recorded",
		"With several messages the engine does not grant what the recorded server granted, so what it waits for then is not what the recorded client sent.",
		func(s *scene, d *difference) bool {
			return s.is("buffer_stall", "concurrent") && s.role == server && d.kind == extra && d.homa.Type == wire.Resend
		},
	},
	{
		"asking while the recorded host was late",
		"Emulation held up the recorded host's timer thread and its receive path, so that silence ended before it asked, or it asked less often. checkTimed holds the engine to the protocol's time-outs.",
		func(_ *scene, d *difference) bool {
			return d.kind == extra && (d.homa.Type == wire.Resend || d.homa.Type == wire.NeedAck) && !d.asked
		},
	},
	{
		"RESEND in answer to NEED_ACK",
		"With an incomplete response 6.1 ignores NEED_ACK and waits for its timer; the engine asks at once as main does, which a server of any version answers.",
		func(s *scene, d *difference) bool {
			return s.version == wire.Linux61 && s.role == client && d.kind == extra && d.homa.Type == wire.Resend && d.asked
		},
	},
	{
		"more than one message of a peer granted",
		"6.1 grants one message of a peer at a time, so always at priority 0. The engine grants several as main does, and tells them apart by priority.",
		func(s *scene, d *difference) bool {
			return s.version == wire.Linux61 && s.is("buffer_stall", "concurrent") && d.kind == other && d.homa.Type == wire.Grant &&
				within(d.fields, "priority")
		},
	},
	{
		"moment of a grant",
		"How many packets the recorded host saw in one interrupt, and when its FIFO share was due, was its own affair; a grant comes at most one FIFO increment or window later.",
		func(s *scene, d *difference) bool {
			return d.kind == behind && s.is("buffer_stall", "1mb_response") && d.amount <= 50_000
		},
	},
	{
		"frames larger than the grant",
		"6.1 with segmentation sends a large frame whole that begins below the grant, and so more than was granted; no GRANT for the rest was recorded. The engine stops at the grant, and has no end from which to ask for the ACK.",
		func(s *scene, d *difference) bool {
			return s.version == wire.Linux61 && s.is("gso_") && d.kind == missing && (d.homa.Type == wire.Data || d.homa.Type == wire.NeedAck)
		},
	},
	{
		"several messages at once",
		"Which of the stalled server's three messages left first, and was granted first, depends on queues of the recorded host. Gaps lie elsewhere accordingly.",
		func(s *scene, d *difference) bool {
			return s.is("buffer_stall") &&
				(d.kind == missing && d.homa.Type == wire.Resend || d.kind == extra && d.homa.Type == wire.Data && d.homa.Retransmit)
		},
	},
	{
		"BUSY crossing the response",
		"RESEND came while the recorded host's response was already under way inside it; it had not left when it was recorded.",
		func(s *scene, d *difference) bool {
			return s.is("concurrent") && s.version == wire.Linux61 && s.role == server && d.kind == extra && d.homa.Type == wire.Busy
		},
	},
	{
		"doubled by the network",
		"Network emulation in the recorded host doubled its packets before they were recorded.",
		func(s *scene, d *difference) bool {
			return s.is("netem_dup") && d.kind == missing && d.homa.Type == wire.Ack
		},
	},
	{
		"lost before it was recorded",
		"Network emulation in the recorded host lost the counterpart, or what it was an answer to.",
		func(s *scene, d *difference) bool {
			return s.is("netem_loss") && (d.kind == extra && slices.Contains([]wire.Type{wire.Data, wire.Busy}, d.homa.Type) ||
				d.kind == missing && (d.homa.Type == wire.Resend || d.homa.Type == wire.NeedAck))
		},
	},
	{
		"delayed before it was recorded",
		"Network emulation in the recorded host held most of its packets for 3 ms, so that their times say nothing about its ticks, and its answers are missing at the end.",
		func(s *scene, d *difference) bool {
			return s.is("netem_reorder") && (d.kind == missing && (d.homa.Type == wire.Resend || d.homa.Type == wire.NeedAck) ||
				d.kind == extra && d.homa.Type == wire.Ack)
		},
	},
}

// within reports whether all fields are among those allowed.
func within(fields []string, allowed ...string) bool {
	return len(fields) > 0 && !slices.ContainsFunc(fields, func(f string) bool { return !slices.Contains(allowed, f) })
}

// notReplayed are scenes in which the engine has no part that could be compared.
var notReplayed = []exception{
	{
		name: "host without Homa", reason: "Its kernel answered; an engine would only be there if it did speak Homa.",
		applies: func(s *scene, _ *difference) bool { return s.is("no_homa_host") && s.role == server },
	},
	{
		name: "livelock", reason: "The recorded sender cut its data wrongly, and the receiver refused what overlaps: TestLivelock shows that the engine gets out of it on either side.",
		applies: func(s *scene, _ *difference) bool { return s.is("trap") },
	},
}

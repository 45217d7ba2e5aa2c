package config

// The key table of `translate` and `homa`; see raw.go.

type rawTranslate struct {
	at
	name          scalar
	from          rawFrom
	to            rawTo
	framing       rawFraming
	limits        rawLimits
	timeouts      rawTimeouts
	retry         scalar
	failures      scalar
	proxyProtocol rawProxyProtocol
	accessLog     scalar
}

func (r *rawTranslate) fields() []field {
	return []field{
		{"name", &r.name},
		{"from", &r.from},
		{"to", &r.to},
		{"framing", &r.framing},
		{"limits", &r.limits},
		{"timeouts", &r.timeouts},
		{"retry", &r.retry},
		{"failures", &r.failures},
		{"proxy_protocol", &r.proxyProtocol},
		{"access_log", &r.accessLog},
	}
}

type rawFrom struct {
	at
	tcp, homa scalar
	tunnel    rawTunnel
}

func (r *rawFrom) fields() []field {
	return []field{{"tcp", &r.tcp}, {"tunnel", &r.tunnel}, {"homa", &r.homa}}
}

type rawTunnel struct {
	at
	dst, port scalar
}

func (r *rawTunnel) fields() []field {
	return []field{{"dst", &r.dst}, {"port", &r.port}}
}

type rawTo struct {
	at
	tcp       scalarOrList
	homa, via scalar
}

func (r *rawTo) fields() []field {
	return []field{{"tcp", &r.tcp}, {"homa", &r.homa}, {"via", &r.via}}
}

type rawFraming struct {
	at
	typ             scalar
	max             scalar
	bytes           scalar
	order           scalar
	offset          scalar
	counts          scalar
	delimiter       scalar
	delimiterHex    scalar
	keep            scalar
	pipeline        scalar
	head            scalar
	depth           scalar
	connectionState scalar
}

func (r *rawFraming) fields() []field {
	return []field{
		{"type", &r.typ},
		{"max", &r.max},
		{"bytes", &r.bytes},
		{"order", &r.order},
		{"offset", &r.offset},
		{"counts", &r.counts},
		{"delimiter", &r.delimiter},
		{"delimiter_hex", &r.delimiterHex},
		{"keep", &r.keep},
		{"pipeline", &r.pipeline},
		{"head", &r.head},
		{"depth", &r.depth},
		{"connection_state", &r.connectionState},
	}
}

type rawLimits struct {
	at
	connections       scalar
	outstanding       scalar
	outstandingAll    scalar
	buffer            scalar
	serverConnections scalar
	pipeline          scalar
}

func (r *rawLimits) fields() []field {
	return []field{
		{"connections", &r.connections},
		{"outstanding", &r.outstanding},
		{"outstanding_all", &r.outstandingAll},
		{"buffer", &r.buffer},
		{"server_connections", &r.serverConnections},
		{"pipeline", &r.pipeline},
	}
}

type rawTimeouts struct {
	at
	connect, request, idle, write, outage scalar
}

func (r *rawTimeouts) fields() []field {
	return []field{
		{"connect", &r.connect}, {"request", &r.request}, {"idle", &r.idle}, {"write", &r.write}, {"outage", &r.outage},
	}
}

type rawProxyProtocol struct {
	at
	in, out scalar
}

func (r *rawProxyProtocol) fields() []field {
	return []field{{"in", &r.in}, {"out", &r.out}}
}

type rawHoma struct {
	at
	addresses     scalars
	device        scalar
	version       scalar
	peers         objects[rawHomaPeer, *rawHomaPeer]
	unscheduled   scalar
	clientPort    scalar
	linkRate      scalar
	dscp          scalars
	linkPriority  scalars
	resend        scalar
	timeout       scalar
	incoming      scalar
	window        scalar
	receiveMemory scalar
	sendMemory    scalar
}

func (r *rawHoma) fields() []field {
	return []field{
		{"addresses", &r.addresses},
		{"device", &r.device},
		{"version", &r.version},
		{"peers", &r.peers},
		{"unscheduled", &r.unscheduled},
		{"client_port", &r.clientPort},
		{"link_rate", &r.linkRate},
		{"dscp", &r.dscp},
		{"link_priority", &r.linkPriority},
		{"resend", &r.resend},
		{"timeout", &r.timeout},
		{"incoming", &r.incoming},
		{"window", &r.window},
		{"receive_memory", &r.receiveMemory},
		{"send_memory", &r.sendMemory},
	}
}

type rawHomaPeer struct {
	at
	address, version, unscheduled scalar
}

func (r *rawHomaPeer) fields() []field {
	return []field{{"address", &r.address}, {"version", &r.version}, {"unscheduled", &r.unscheduled}}
}

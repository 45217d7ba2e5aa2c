package config

// The structs of this file are the key table: they have the shape of the YAML,
// with every value still a node, and their fields methods name the keys. What
// the keys mean is in parse.go.

type rawFile struct {
	at
	name         scalar
	log          rawLog
	admin        rawAdmin
	identity     rawIdentity
	listen       scalars
	tun          rawTun
	peers        objects[rawPeer, *rawPeer]
	rules        objects[rawRule, *rawRule]
	accept       objects[rawAccept, *rawAccept]
	translate    objects[rawTranslate, *rawTranslate]
	homa         rawHoma
	flows        rawFlows
	associations rawAssociations
}

func (r *rawFile) fields() []field {
	return []field{
		{"name", &r.name},
		{"log", &r.log},
		{"admin", &r.admin},
		{"identity", &r.identity},
		{"listen", &r.listen},
		{"tun", &r.tun},
		{"peers", &r.peers},
		{"rules", &r.rules},
		{"accept", &r.accept},
		{"translate", &r.translate},
		{"homa", &r.homa},
		{"flows", &r.flows},
		{"associations", &r.associations},
	}
}

type rawLog struct {
	at
	level, format scalar
}

func (r *rawLog) fields() []field {
	return []field{{"level", &r.level}, {"format", &r.format}}
}

type rawAdmin struct {
	at
	socket, http scalar
}

func (r *rawAdmin) fields() []field {
	return []field{{"socket", &r.socket}, {"http", &r.http}}
}

type rawIdentity struct {
	at
	cert, key, ca scalar
	psk           rawPSK
	pskDir        scalar
}

func (r *rawIdentity) fields() []field {
	return []field{
		{"cert", &r.cert},
		{"key", &r.key},
		{"ca", &r.ca},
		{"psk", &r.psk},
		{"psk_dir", &r.pskDir},
	}
}

type rawPSK struct {
	at
	identity, keyFile scalar
}

func (r *rawPSK) fields() []field {
	return []field{{"identity", &r.identity}, {"key_file", &r.keyFile}}
}

type rawTun struct {
	at
	name      scalar
	addresses scalars
	routes    scalars
	mtu       scalar
	backend   scalar
	queues    scalar
	mark      scalar
}

func (r *rawTun) fields() []field {
	return []field{
		{"name", &r.name},
		{"addresses", &r.addresses},
		{"routes", &r.routes},
		{"mtu", &r.mtu},
		{"backend", &r.backend},
		{"queues", &r.queues},
		{"mark", &r.mark},
	}
}

type rawPeer struct {
	at
	name       scalar
	endpoints  scalars
	serverName scalar
	pathMTU    scalar
}

func (r *rawPeer) fields() []field {
	return []field{
		{"name", &r.name},
		{"endpoints", &r.endpoints},
		{"server_name", &r.serverName},
		{"path_mtu", &r.pathMTU},
	}
}

type rawRule struct {
	at
	dst, ports   scalars
	action, peer scalar
}

func (r *rawRule) fields() []field {
	return []field{
		{"dst", &r.dst},
		{"ports", &r.ports},
		{"action", &r.action},
		{"peer", &r.peer},
	}
}

type rawAccept struct {
	at
	peer       scalar
	dst, ports scalars
	action     scalar
}

func (r *rawAccept) fields() []field {
	return []field{
		{"peer", &r.peer},
		{"dst", &r.dst},
		{"ports", &r.ports},
		{"action", &r.action},
	}
}

type rawFlows struct {
	at
	connectTimeout   scalar
	idleTimeout      scalar
	keepalive        rawKeepalive
	bufferMax        scalar
	max              scalar
	openingMax       scalar
	openingPerSource scalar
}

func (r *rawFlows) fields() []field {
	return []field{
		{"connect_timeout", &r.connectTimeout},
		{"idle_timeout", &r.idleTimeout},
		{"keepalive", &r.keepalive},
		{"buffer_max", &r.bufferMax},
		{"max", &r.max},
		{"opening_max", &r.openingMax},
		{"opening_per_source", &r.openingPerSource},
	}
}

type rawKeepalive struct {
	at
	idle, interval, count scalar
}

func (r *rawKeepalive) fields() []field {
	return []field{{"idle", &r.idle}, {"interval", &r.interval}, {"count", &r.count}}
}

type rawAssociations struct {
	at
	keepalive         scalar
	deadAfter         scalar
	handshakeTimeout  scalar
	halfOpenMax       scalar
	halfOpenPerSource scalar
	sessionGrace      scalar
	rekeyAfter        scalar
	rekeyBytes        scalar
	offload           scalar
}

func (r *rawAssociations) fields() []field {
	return []field{
		{"keepalive", &r.keepalive},
		{"dead_after", &r.deadAfter},
		{"handshake_timeout", &r.handshakeTimeout},
		{"half_open_max", &r.halfOpenMax},
		{"half_open_per_source", &r.halfOpenPerSource},
		{"session_grace", &r.sessionGrace},
		{"rekey_after", &r.rekeyAfter},
		{"rekey_bytes", &r.rekeyBytes},
		{"offload", &r.offload},
	}
}

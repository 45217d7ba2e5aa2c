package gateway

// turn is told about the turns of the goroutines that bring packets and events:
// what these lead to is done by the same goroutine, down to the segments of the
// tunnel, which leave together at the end. It implements tcpip.Turn and
// bridge.Turn.
type turn struct{ g *Gateway }

func (t turn) Begin() {
	t.g.node.Cork()
	t.g.bridge.Begin()
}

func (t turn) Step() { t.g.bridge.Step() }

func (t turn) End() {
	t.g.bridge.End()
	t.g.node.Uncork()
}

package tcpip

import (
	"reflect"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// sndBufUsed is the path to the count of bytes that a gVisor endpoint holds for
// sending or until they are acknowledged (Endpoint.sndQueueInfo.SndBufUsed).
// gVisor exports the lock that guards it but no way to ask, and counting
// acknowledgements in the link would cost a lookup for each packet.
var sndBufUsed = func() []int {
	ep := reflect.TypeFor[tcp.Endpoint]()
	q, ok := ep.FieldByName("sndQueueInfo")
	if !ok {
		panic("tcpip: this gVisor version has no Endpoint.sndQueueInfo")
	}
	used, ok := q.Type.FieldByName("SndBufUsed")
	if !ok || used.Type.Kind() != reflect.Int {
		panic("tcpip: this gVisor version has no Endpoint.sndQueueInfo.SndBufUsed")
	}
	return append(append([]int(nil), q.Index...), used.Index...)
}()

// Outstanding gives the number of bytes that Write took and the peer has not
// yet acknowledged, where a FIN that was sent counts as one when nothing else
// is left; zero after the end of the connection, when nothing can be delivered
// any more. A peer that acknowledged all may still not have read it. There is no
// event for it: poll it, with a bound, where it matters.
func (s *Stream) Outstanding() int {
	// The endpoint's lock suffices: whoever changes the count holds it too.
	s.ep.LockUser()
	defer s.ep.UnlockUser()
	if n := int(reflect.ValueOf(s.ep).Elem().FieldByIndex(sndBufUsed).Int()); n > 0 {
		return n
	}
	switch s.state() {
	case tcp.StateFinWait1, tcp.StateClosing, tcp.StateLastAck:
		return 1
	}
	return 0
}

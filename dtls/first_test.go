package dtls

import (
	"fmt"
	"testing"
)

func TestFirst(t *testing.T) {
	w := newWorld(t, nil)
	c, s := w.pair()
	for i := range 10 {
		check(t, sendRecord(c, []byte(fmt.Sprint("up", i))))
		check(t, sendRecord(s, []byte(fmt.Sprint("down", i))))
	}
	eventually(t, "data", func() bool {
		return len(w.serverEvents.received(s)) == 10 && len(w.clientEvents.received(c)) == 10
	})
	t.Logf("%+v %v", c.Info(), c.Identity())
	t.Logf("%+v %v", s.Info(), s.Identity())
	t.Logf("%+v", w.server.Stats())
}

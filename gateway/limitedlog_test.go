package gateway

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWarningsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := newLimitedLog(slog.New(slog.NewTextHandler(&b, nil)), time.Second, 10)
		for range 1000 {
			l.warn("peer refused", "remote", "192.0.2.1:5")
		}
		if n := strings.Count(b.String(), "\n"); n != 10 {
			t.Errorf("%d lines for 1000 warnings at once, want 10", n)
		}
		time.Sleep(2 * time.Second)
		b.Reset()
		l.warn("peer refused", "remote", "192.0.2.1:5")
		if !strings.Contains(b.String(), "not_shown=990") {
			t.Errorf("what was left out is not counted: %s", b.String())
		}
	})
}

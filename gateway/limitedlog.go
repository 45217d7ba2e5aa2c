package gateway

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// limitedLog warns of what strangers and peers can cause as often as they like, at a
// limited rate. What is left out is counted in the next line, and logged at debug.
type limitedLog struct {
	log     *slog.Logger
	limit   *rate.Limiter
	skipped atomic.Uint64
}

// newLimitedLog allows a line every so often, and burst at once.
func newLimitedLog(log *slog.Logger, every time.Duration, burst int) *limitedLog {
	return &limitedLog{log: log, limit: rate.NewLimiter(rate.Every(every), burst)}
}

func (l *limitedLog) warn(msg string, args ...any) {
	level := slog.LevelWarn
	if l.limit.Allow() {
		if n := l.skipped.Swap(0); n > 0 {
			args = append(args, "not_shown", n)
		}
	} else {
		l.skipped.Add(1)
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, msg, args...)
}

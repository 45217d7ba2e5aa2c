package gateway

import (
	"context"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// limitedLog warns of what strangers and peers can cause as often as they like:
// one line a second, ten at once. What is left out is counted in the next line,
// and logged at debug.
type limitedLog struct {
	log     *slog.Logger
	limit   *rate.Limiter
	skipped atomic.Uint64
}

func newLimitedLog(log *slog.Logger) *limitedLog {
	return &limitedLog{log: log, limit: rate.NewLimiter(1, 10)}
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

package dtls

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/pion/logging"
)

// libraryLog passes the handshake library's messages on as debug messages,
// whatever their level: all of them are caused by what peers send.
type libraryLog struct{ l *slog.Logger }

// NewLogger makes the logger for one of the library's scopes.
func (f libraryLog) NewLogger(string) logging.LeveledLogger { return f }

func (f libraryLog) log(msg string) {
	if f.l.Enabled(context.Background(), slog.LevelDebug) {
		f.l.Debug("handshake library", "msg", msg)
	}
}

func (f libraryLog) logf(format string, args ...any) {
	if f.l.Enabled(context.Background(), slog.LevelDebug) {
		f.l.Debug("handshake library", "msg", fmt.Sprintf(format, args...))
	}
}

// Trace messages, one for each flight and record, are left out.

func (f libraryLog) Trace(string)                   {}
func (f libraryLog) Tracef(string, ...any)          {}
func (f libraryLog) Debug(msg string)               { f.log(msg) }
func (f libraryLog) Debugf(format string, a ...any) { f.logf(format, a...) }
func (f libraryLog) Info(msg string)                { f.log(msg) }
func (f libraryLog) Infof(format string, a ...any)  { f.logf(format, a...) }
func (f libraryLog) Warn(msg string)                { f.log(msg) }
func (f libraryLog) Warnf(format string, a ...any)  { f.logf(format, a...) }
func (f libraryLog) Error(msg string)               { f.log(msg) }
func (f libraryLog) Errorf(format string, a ...any) { f.logf(format, a...) }

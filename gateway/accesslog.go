package gateway

import (
	"cmp"
	"context"
	"log/slog"

	"github.com/tougw/tougw/translate"
)

// accessLog writes one line for each request.
func accessLog(log *slog.Logger) func(*translate.Record) {
	return func(r *translate.Record) {
		attrs := []slog.Attr{
			slog.String("rule", r.Rule), slog.String("id", r.ID), slog.String("client", cmp.Or(addrText(r.Client), "-")),
			slog.String("server", cmp.Or(addrText(r.Server), "-")),
			slog.String("request", r.Name), slog.Int64("request_bytes", r.RequestBytes), slog.Int64("response_bytes", r.ResponseBytes),
			slog.Duration("total", r.Total), slog.String("result", string(r.Result)),
		}
		if r.Peer != "" {
			attrs = append(attrs, slog.String("peer", r.Peer))
		}
		if r.Error != "" {
			attrs = append(attrs, slog.String("err", r.Error))
		}
		log.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
	}
}

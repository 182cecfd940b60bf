package telemetry

import (
	"context"
	"log/slog"
)

// Quiet returns a handler for the logs of libraries that say more than an operator of this program can act
// on: levels are lowered as Quieter says before h sees them.
func Quiet(h slog.Handler) slog.Handler { return quietHandler{h} }

// Quieter lowers Error, which Kubernetes and etcd use for what they retry by themselves, to Warn, and what is
// below it to Debug. Finer detail than Debug stays as fine as it is.
func Quieter(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return min(l, slog.LevelDebug)
}

type quietHandler struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h quietHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, Quieter(l))
}

// Handle implements slog.Handler.
func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Level = Quieter(r.Level)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name)}
}

package kube

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// zapCore brings what etcd logs into slog, at the levels of quieter.
type zapCore struct {
	log    *slog.Logger
	fields []zapcore.Field
	muted  *atomic.Bool
}

func newZapCore(log *slog.Logger) *zapCore {
	return &zapCore{log: log.With("component", "etcd"), muted: new(atomic.Bool)}
}

// mute drops everything from now on: etcd calls the closing of its own listener an error.
func (c *zapCore) mute() { c.muted.Store(true) }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return quieter(slog.LevelError)
	case l >= zapcore.WarnLevel:
		return quieter(slog.LevelWarn)
	}
	return quieter(slog.LevelInfo)
}

// Enabled implements zapcore.Core.
func (c *zapCore) Enabled(l zapcore.Level) bool {
	return !c.muted.Load() && c.log.Enabled(context.Background(), slogLevel(l))
}

// With implements zapcore.Core.
func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log, fields: append(append([]zapcore.Field{}, c.fields...), fields...), muted: c.muted}
}

// Check implements zapcore.Core.
func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]any, 0, 2*len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, k, v)
	}
	c.log.Log(context.Background(), slogLevel(e.Level), e.Message, attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *zapCore) Sync() error { return nil }

// klogHandler makes what Kubernetes calls Info a Debug: at its quietest it still says dozens of lines at
// each start that no operator of a hub can act on.
type klogHandler struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h klogHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, quieter(l))
}

// Handle implements slog.Handler.
func (h klogHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Level = quieter(r.Level)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h klogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return klogHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h klogHandler) WithGroup(name string) slog.Handler {
	return klogHandler{h.Handler.WithGroup(name)}
}

// quieter lowers Info to Debug, and Warn and Error, which Kubernetes uses for what it retries by itself,
// by one step.
func quieter(l slog.Level) slog.Level {
	switch {
	case l >= slog.LevelError:
		return slog.LevelWarn
	case l >= slog.LevelWarn:
		return slog.LevelDebug
	}
	return slog.LevelDebug
}

package kube

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"

	"github.com/skerry-dev/skerry/internal/telemetry"
)

// zapCore brings what etcd logs into slog, at the levels of telemetry.Quieter.
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
		return telemetry.Quieter(slog.LevelError)
	case l >= zapcore.WarnLevel:
		return telemetry.Quieter(slog.LevelWarn)
	}
	return telemetry.Quieter(slog.LevelInfo)
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

package natsserver

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
)

// logger brings NATS' log into slog. Its notices tell of its own start and of single connections, so
// they are details here; NATS calls an error what a client did wrong, so that is a warning.
type logger struct {
	to    *slog.Logger
	fatal atomic.Pointer[string] // the last message with which NATS gave up
}

// levelDetail is below debug: NATS' own debug lines, several for each connection.
const levelDetail = slog.LevelDebug - 4

func (l *logger) Noticef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }
func (l *logger) Warnf(format string, v ...any)   { l.log(slog.LevelWarn, format, v) }
func (l *logger) Errorf(format string, v ...any)  { l.log(slog.LevelWarn, format, v) }
func (l *logger) Debugf(format string, v ...any)  { l.log(levelDetail, format, v) }
func (l *logger) Tracef(format string, v ...any)  { l.log(levelDetail, format, v) }

func (l *logger) Fatalf(format string, v ...any) {
	message := fmt.Sprintf(format, v...)
	l.fatal.Store(&message)
	l.log(slog.LevelError, "%s", []any{message})
}

func (l *logger) log(level slog.Level, format string, v []any) {
	if l.to.Enabled(context.Background(), level) {
		l.to.Log(context.Background(), level, fmt.Sprintf(format, v...))
	}
}

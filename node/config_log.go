package node

import (
	"io"
	"log/slog"

	"github.com/isobar-project/isobar/clock"
)

// Logger writes records to w as LogLevel and LogFormat say; those of commands up to a
// tenth of a second late, many at a time.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	b := &logBuffer{w: w, clock: clock.Real()}
	if c.LogFormat == LogJSON {
		return slog.New(bufferedHandler{slog.NewJSONHandler(b, options), b})
	}
	return slog.New(bufferedHandler{slog.NewTextHandler(b, options), b})
}

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
	h := bufferedHandler{Handler: slog.NewTextHandler(b, options), buffer: b, format: c.LogFormat, bare: true}
	if c.LogFormat == LogJSON {
		h.Handler = slog.NewJSONHandler(b, options)
	}
	return slog.New(h)
}

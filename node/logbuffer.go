package node

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// Records of commands come by the ten thousand a second; each of them written on its own
// is a system call that a command pays for.
const (
	logDelay = 100 * time.Millisecond
	logBytes = 32 << 10
)

// logBuffer gathers records and writes them together, after at most logDelay. What is a
// warning or worse is written at once, with all before it.
type logBuffer struct {
	w     io.Writer
	clock clock.Clock

	mu      sync.Mutex
	pending []byte
	armed   bool
}

// Write implements io.Writer; slog calls it once a record. An error of the writer below
// has nobody to be told to.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(b.pending, p...)
	if len(b.pending) >= logBytes {
		b.flushLocked()
	} else if !b.armed {
		b.armed = true
		b.clock.AfterFunc(logDelay, b.flush)
	}
	return len(p), nil
}

func (b *logBuffer) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed = false
	b.flushLocked()
}

func (b *logBuffer) flushLocked() {
	if len(b.pending) > 0 {
		_, _ = b.w.Write(b.pending)
		b.pending = b.pending[:0]
	}
}

// bufferedHandler flushes the buffer when a record matters.
type bufferedHandler struct {
	slog.Handler
	buffer *logBuffer
	format LogFormat
	// bare is true while nothing is added to every record: then a line of the format can go
	// to the buffer as it is.
	bare bool
}

// Handle implements slog.Handler.
func (h bufferedHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn || r.Message != commandRecord {
		h.buffer.flush()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h bufferedHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return bufferedHandler{Handler: h.Handler.WithAttrs(a), buffer: h.buffer}
}

// WithGroup implements slog.Handler.
func (h bufferedHandler) WithGroup(name string) slog.Handler {
	return bufferedHandler{Handler: h.Handler.WithGroup(name), buffer: h.buffer}
}

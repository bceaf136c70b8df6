package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isobar-project/isobar/schemas"
)

// HistoryConfig bounds the stream that keeps events.
type HistoryConfig struct {
	// MaxAge and MaxBytes: the oldest events go first. 0 is 24 h and 256 MiB.
	MaxAge   time.Duration
	MaxBytes int64
	// Replicas is for clusters; 0 is 1.
	Replicas int
}

// duplicatesWindow is how long the stream knows an event's id: longer than an
// outbox holds an event that it may send twice.
const duplicatesWindow = 2 * time.Minute

// HistoryError says that events are published but not kept.
type HistoryError struct {
	Fix string
	Err error
}

// Error is the cause followed by the fix.
func (e *HistoryError) Error() string {
	return fmt.Sprintf("events are not kept: %v: %s", e.Err, e.Fix)
}

// Unwrap is the cause.
func (e *HistoryError) Unwrap() error { return e.Err }

// KeepHistory creates the stream MEMORY_EVENTS, or brings an existing one to the
// configuration. Errors are *HistoryError: without JetStream everything works but
// replays and late comers.
func KeepHistory(ctx context.Context, nc *nats.Conn, c HistoryConfig) error {
	if c.MaxAge == 0 {
		c.MaxAge = 24 * time.Hour
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 256 << 20
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return &HistoryError{Fix: "this is a defect: report it", Err: err}
	}
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        schemas.EventStream,
		Description: "events of the memory nodes",
		Subjects:    []string{schemas.EventSubjects()},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		MaxAge:      c.MaxAge,
		MaxBytes:    c.MaxBytes,
		Duplicates:  min(duplicatesWindow, c.MaxAge),
		Storage:     jetstream.FileStorage,
		Replicas:    max(1, c.Replicas),
		AllowDirect: true,
		NoAck:       true,
	})
	if err == nil {
		return nil
	}
	fix := "look at the server's log"
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, nats.ErrNoResponders):
		fix = "enable JetStream on the server and for this account"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrPermissionViolation):
		fix = "allow this user to publish to $JS.API.> and to use JetStream"
	}
	return &HistoryError{Fix: fix, Err: err}
}

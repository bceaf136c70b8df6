package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
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
	// Tenants have accounts of their own, and each a stream of what it may hear. Together
	// they have a quarter of MaxBytes.
	Tenants []string
}

// share is how many bytes the stream of all events may take, and that of each tenant.
func (c *HistoryConfig) share() (all, each int64) {
	if len(c.Tenants) == 0 {
		return c.MaxBytes, 0
	}
	all = c.MaxBytes - c.MaxBytes/4
	return all, max(1, c.MaxBytes/4/int64(len(c.Tenants)))
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

// KeepHistory creates the stream MEMORY_EVENTS and those of tenants, or brings existing ones
// to the configuration. Errors are *HistoryError: without JetStream everything works but
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
	all, each := c.share()
	err = c.keep(ctx, js, jetstream.StreamConfig{Name: schemas.EventStream, Description: "events of the memory nodes",
		Subjects: []string{schemas.EventSubjects()}, MaxBytes: all})
	for _, t := range c.Tenants {
		if err != nil {
			break
		}
		// Kept under the subjects that the tenant knows.
		subjects := schemas.TenantSubject(t, schemas.EventSubjects())
		err = c.keep(ctx, js, jetstream.StreamConfig{Name: schemas.TenantEventStream(t), Description: "events of the memory nodes, as tenant " + t + " hears them",
			Subjects: []string{subjects}, MaxBytes: each,
			SubjectTransform: &jetstream.SubjectTransformConfig{Source: subjects, Destination: schemas.EventSubjects()}})
	}
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
	case strings.Contains(err.Error(), syscall.ENOSPC.Error()): // the server sends the text alone
		fix = noSpaceFix
	}
	return &HistoryError{Fix: fix, Err: err}
}

// keep makes a stream with what all of them have in common.
func (c *HistoryConfig) keep(ctx context.Context, js jetstream.JetStream, s jetstream.StreamConfig) error {
	s.Retention, s.Discard, s.Storage = jetstream.LimitsPolicy, jetstream.DiscardOld, jetstream.FileStorage
	s.MaxAge, s.Duplicates, s.Replicas = c.MaxAge, min(duplicatesWindow, c.MaxAge), max(1, c.Replicas)
	s.AllowDirect, s.NoAck = true, true
	_, err := js.CreateOrUpdateStream(ctx, s)
	return err
}

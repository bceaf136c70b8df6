package node

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/schemas"
)

const (
	// commandLogDelay is how long an outcome waits at most before its record is made.
	commandLogDelay = 100 * time.Millisecond
	// commandLogFull is how many outcomes wait at most for that time.
	commandLogFull = 4096
	// commandLogTurn is how many records are made before others may use the processor.
	commandLogTurn = 32
)

// commandRecord is the message of the one record that each command makes.
const commandRecord = "command"

// outcome is what a command's record says.
type outcome struct {
	at                                  time.Time
	action, requestID, tenant, deviceID string
	code                                schemas.Code
	took                                time.Duration
}

// commandLog writes one record a command. To make one takes longer than many a command, so
// who answers only notes the outcome (the client's next command would wait for the
// processor), and the records follow on a goroutine of their own, with the time of the
// answer.
type commandLog struct {
	log   *slog.Logger
	clock clock.Clock

	mu      sync.Mutex
	pending []outcome
	armed   bool

	writing sync.Mutex // keeps the records in order, and guards what follows
	spare   []outcome
	line    commandLine
	lines   []byte
}

// word says how the command ended.
func (o *outcome) word() string {
	if o.code != "" {
		return "failed"
	}
	return "done"
}

// add notes one outcome, from any goroutine.
func (l *commandLog) add(o bus.Outcome) {
	if !l.log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	c := o.Command
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, outcome{at: o.At, action: string(c.Action), requestID: c.RequestID, tenant: c.Tenant,
		deviceID: deviceOf(c.Data), code: o.Code, took: o.Took})
	switch {
	case len(l.pending) == commandLogFull:
		go l.flush()
	case !l.armed:
		l.armed = true
		l.clock.AfterFunc(commandLogDelay, l.flush)
	}
}

// flush makes the records of all that was noted.
func (l *commandLog) flush() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	list := l.pending
	l.pending, l.armed = l.spare, false
	l.mu.Unlock()
	for turn := range slices.Chunk(list, commandLogTurn) {
		l.write(turn)
		runtime.Gosched()
	}
	clear(list)
	l.spare = list[:0]
	if cap(list) > 2*commandLogFull {
		l.spare = nil
	}
}

// write makes the records of some outcomes. A log that cannot be written has nobody to be told.
func (l *commandLog) write(list []outcome) {
	h := l.log.Handler()
	own, _ := h.(bufferedHandler)
	l.lines = l.lines[:0]
	for i := range list {
		ok := false
		if own.bare {
			l.lines, ok = l.line.append(l.lines, own.format, &list[i])
		}
		if !ok {
			l.hand(own.buffer)
			_ = h.Handle(context.Background(), list[i].record())
		}
	}
	l.hand(own.buffer)
}

// hand gives the log the lines that are ready.
func (l *commandLog) hand(to *logBuffer) {
	if len(l.lines) > 0 {
		_, _ = to.Write(l.lines)
		l.lines = l.lines[:0]
	}
}

// record is what a commandLine writes, for any handler.
func (o *outcome) record() slog.Record {
	r := slog.NewRecord(o.at, slog.LevelInfo, commandRecord, 0)
	r.AddAttrs(slog.String("action", o.action), slog.String("request_id", o.requestID), slog.String("tenant", o.tenant),
		slog.String("device", o.deviceID), slog.String("outcome", o.word()), slog.String("code", string(o.code)),
		slog.Float64("duration_ms", float64(o.took)/float64(time.Millisecond)))
	return r
}

// deviceOf is the device that a request names, if it names one.
func deviceOf(data any) string {
	switch r := data.(type) {
	case *schemas.AllocateRequest:
		return r.DeviceID
	case *schemas.LoadModelRequest:
		return r.DeviceID
	case *schemas.UnloadModelRequest:
		return r.DeviceID
	case *schemas.SetLimitsRequest:
		return r.DeviceID
	case *schemas.GetStatusRequest:
		return r.DeviceID
	case *schemas.GetPressureRequest:
		return r.DeviceID
	}
	return ""
}

package soak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// settleTime is how long after a restart clients may still feel it.
const settleTime = 10 * time.Second

// maxViolations are kept word by word; more are counted.
const maxViolations = 50

// truth collects what was done and what was not as it must be. Its methods may be called from
// any goroutine.
type truth struct {
	mu         sync.Mutex
	counts     map[string]map[string]int // what → code → how often
	violations []string
	more       int
	notes      []string
	sums       []Sum
	starts     []float64
	restored   int
	down       bool      // the node is being killed or started
	lastUp     time.Time // when it came back
	held       map[string]bool
	seq        sequence
	limits     limitTrack
	floors     limitTrack
}

func newTruth() *truth {
	return &truth{counts: map[string]map[string]int{}, held: map[string]bool{}}
}

func (t *truth) count(what, code string) {
	if code == "" {
		code = "done"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[what] == nil {
		t.counts[what] = map[string]int{}
	}
	t.counts[what][code]++
}

// violate notes something that must be true and was not.
func (t *truth) violate(where, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.violations) >= maxViolations {
		t.more++
		return
	}
	t.violations = append(t.violations, time.Now().UTC().Format("15:04:05.000")+" "+where+": "+fmt.Sprintf(format, args...))
}

func (t *truth) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

func (t *truth) started(ms float64, grants int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.starts, t.restored = append(t.starts, ms), max(t.restored, grants)
}

// disturb marks the time in which there is no node.
func (t *truth) disturb(down bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.down = down; !down {
		t.lastUp = time.Now()
	}
}

// disturbed reports whether there may have been no node at some time since.
func (t *truth) disturbed(since time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.down || !t.lastUp.IsZero() && since.Before(t.lastUp.Add(settleTime))
}

// hold and release say which grants must survive a restart.
func (t *truth) hold(id string)    { t.mu.Lock(); t.held[id] = true; t.mu.Unlock() }
func (t *truth) release(id string) { t.mu.Lock(); delete(t.held, id); t.mu.Unlock() }

// lost hears that a session lost a grant.
func (t *truth) lost(id string) {
	t.mu.Lock()
	held := t.held[id]
	t.mu.Unlock()
	if held {
		t.violate("resume", "the grant %s was lost", id)
	}
}

// always are codes that any command may be refused with while the node comes and goes, or is
// overloaded.
var always = []schemas.Code{schemas.CodeBusy, schemas.CodeDraining}

// judge takes a command's outcome: it counts it and says whether it is as it may be. since is
// when the command began.
func (t *truth) judge(since time.Time, what string, err error, may ...schemas.Code) {
	var e *schemas.Error
	switch {
	case err == nil:
		t.count(what, "")
	case errors.As(err, &e):
		t.count(what, string(e.Code))
		if e.Code == schemas.CodeOutOfMemory {
			if missing := unexplained(e); missing != "" {
				t.violate(what, "a refusal does not say %s: %v", missing, err)
			}
		}
		if slices.Contains(may, e.Code) || slices.Contains(always, e.Code) {
			return
		}
		if e.Code != schemas.CodeInternalError && t.disturbed(since) {
			return // a node that is not there, a claim or an operation that went with it
		}
		t.violate(what, "%v (details %v)", err, e.Details)
	case errors.Is(err, data.ErrDisconnected), errors.Is(err, context.Canceled):
		t.count(what, "disconnected")
		if errors.Is(err, data.ErrDisconnected) && !t.disturbed(since) {
			t.violate(what, "%v", err)
		}
	default:
		t.count(what, "no answer")
		if !t.disturbed(since) {
			t.violate(what, "%v", err)
		}
	}
}

// unexplained is what a refusal for want of memory does not say, "" for nothing.
func unexplained(e *schemas.Error) string {
	for _, key := range []string{"required_bytes", "available_bytes", "shortfall_bytes", "largest_grantable_bytes", "holders"} {
		if _, ok := e.Details[key]; !ok {
			return key
		}
	}
	return ""
}

// code is the code of a refusal, "" for anything else.
func code(err error) schemas.Code {
	var e *schemas.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// uncertain reports whether a command may have been done although nobody heard the answer.
func uncertain(err error) bool {
	if err == nil {
		return false
	}
	c := code(err)
	var pending *client.PendingError
	return c == "" && !errors.As(err, &pending) || c == schemas.CodeNoNode || c == schemas.CodeBusy || c == schemas.CodeOperationNotFound || c == schemas.CodeDraining
}

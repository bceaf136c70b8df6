package ledgertest

import (
	"errors"

	"github.com/isobar-project/isobar/ledger"
)

// ErrPinned is a JobDestroy's of memory that a process still maps; with any other error it is the
// driver that does not take it back.
var ErrPinned = errors.New("a process still maps it")

// Back tells whether the task is that owed bytes are back, which cannot fail.
func (t *Task) Back() bool { return t.back }

// owedBy are the processes that keep what a failed JobDestroy has not given back.
func (t *Task) owedBy() []int32 {
	if errors.Is(t.Fail, ErrPinned) {
		return []int32{PID("s999")}
	}
	return nil
}

// destroyed tells the core of a JobDestroy. Of one that failed the first segment is not back: that
// it is is another task.
func (m *Machine) destroyed(t *Task) {
	gone := t.Ranges
	if t.Fail != nil {
		m.Core.Owed(t.Grant, []ledger.Owing{{Range: gone[0], PIDs: t.owedBy(), Why: t.Fail.Error()}}, m.Now)
		m.Tasks = append(m.Tasks, &Task{Job: ledger.Job{Kind: ledger.JobDestroy, Grant: t.Grant, Ranges: gone[:1]}, back: true})
		gone = gone[1:]
	}
	if len(gone) > 0 {
		m.Core.Destroyed(t.Grant, gone, m.Now)
	}
}

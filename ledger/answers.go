package ledger

import (
	"sort"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// AnswerKey names a command for ever: its tenant and request_id.
func AnswerKey(tenant, requestID string) string { return tenant + "\x00" + requestID }

// AnswerRecord is the outcome of a command as the ledger keeps it, in the region of the
// actor that carried it out and in the same transaction as its effect.
type AnswerRecord struct {
	Key    string
	Digest [32]byte // of the decoded request: sameness of content
	Action string
	Grant  uuid.UUID // what a fresh claim is made for; zero: nothing
	Model  string
	Body   []byte // the reply's data as JSON, without handle
	At     clock.Instant
}

// answerAt is where a device's region holds an answer.
type answerAt struct {
	at  clock.Instant
	rec store.RecID
}

// ForgetAnswers deletes answers from the region: their time has passed, or the grant
// they tell of was undone.
func (d *Device) ForgetAnswers(keys []string) {
	d.begin()
	tx := d.region.Begin()
	for _, k := range keys {
		if a, ok := d.answers[k]; ok {
			tx.Delete(a.rec)
			delete(d.answers, k)
		}
	}
	must(tx.Commit())
}

// Answers is the core that makes commands idempotent: it knows which are running and what
// came of those that are done. It has no region: the records lie with the effects.
type Answers struct {
	// Keep is how long an outcome is remembered (contract: at least 10 minutes).
	keep     time.Duration
	limit    int
	m        map[string]*outcome
	order    []finished // by age, unless unsorted
	unsorted bool
}

// finished names an outcome as it was when it was done: the key may have been undone and
// run again since.
type finished struct {
	key string
	o   *outcome
}

type outcome struct {
	digest  [32]byte
	running []any // who waits for it, the first included
	done    *AnswerRecord
	home    string // the actor whose region holds the record
	ended   clock.Instant
}

// NewAnswers remembers outcomes for keep, at most limit of them.
func NewAnswers(keep time.Duration, limit int) *Answers {
	return &Answers{keep: keep, limit: limit, m: map[string]*outcome{}}
}

// Verdict is what is to be done with a command that carries a request_id.
type Verdict uint8

// The verdicts.
const (
	Run    Verdict = iota // it is new: carry it out, then Finish or Fail
	Join                  // the same command is running: its outcome answers this one too
	Replay                // it is done: answer with the record
	Reject                // the request_id was used for something else, or the memory is full
)

// Ask decides a command. ref is kept while it runs.
func (a *Answers) Ask(key string, digest [32]byte, ref any, now clock.Instant) (Verdict, *AnswerRecord, *schemas.Error) {
	if o, ok := a.m[key]; ok {
		switch {
		case o.digest != digest:
			return Reject, nil, schemas.Errorf(schemas.CodeRequestIDReused, "this request_id was used for another request: choose a new one")
		case o.done != nil:
			return Replay, o.done, nil
		}
		o.running = append(o.running, ref)
		return Join, nil, nil
	}
	if len(a.m) >= a.limit {
		return Reject, nil, schemas.Errorf(schemas.CodeBusy, "%d outcomes are remembered, the most this node keeps for %v", len(a.m), a.keep).
			With("retry_after_ms", 1000)
	}
	a.m[key] = &outcome{digest: digest, running: []any{ref}}
	return Run, nil, nil
}

// Outcome is what a command that is done was answered, and since when.
func (a *Answers) Outcome(key string) (rec *AnswerRecord, ended clock.Instant, ok bool) {
	o, ok := a.m[key]
	if !ok || o.done == nil {
		return nil, 0, false
	}
	return o.done, o.ended, true
}

// Finish records a command's outcome and returns everyone who waits for it.
func (a *Answers) Finish(key, home string, rec AnswerRecord, now clock.Instant) []any {
	o, ok := a.m[key]
	if !ok || o.done != nil {
		return nil
	}
	refs := o.running
	o.running, o.done, o.home, o.ended = nil, &rec, home, now
	a.order = append(a.order, finished{key, o})
	return refs
}

// Fail forgets a command that had no effect and returns everyone who waits for it: a
// retry is a new attempt.
func (a *Answers) Fail(key string) []any {
	o, ok := a.m[key]
	if !ok || o.done != nil {
		return nil
	}
	delete(a.m, key)
	return o.running
}

// Undone forgets an outcome whose effect was taken back.
func (a *Answers) Undone(key string) (home string, ok bool) {
	o, ok := a.m[key]
	if !ok || o.done == nil {
		return "", false
	}
	delete(a.m, key)
	return o.home, true
}

// Restore takes an outcome found in a region by a take-over, in any order.
func (a *Answers) Restore(home string, rec AnswerRecord) {
	o := &outcome{digest: rec.Digest, done: &rec, home: home, ended: rec.At}
	a.m[rec.Key] = o
	a.order = append(a.order, finished{rec.Key, o})
	a.unsorted = true
}

// Expire forgets what is older than keep and returns the keys by home, so that each
// actor deletes its records.
func (a *Answers) Expire(now clock.Instant) map[string][]string {
	if a.unsorted {
		sort.SliceStable(a.order, func(i, j int) bool { return a.order[i].o.ended < a.order[j].o.ended })
		a.unsorted = false
	}
	var out map[string][]string
	for len(a.order) > 0 {
		k, o := a.order[0].key, a.order[0].o
		if a.m[k] == o && now.Sub(o.ended) < a.keep {
			break
		}
		a.order = a.order[1:]
		if a.m[k] != o {
			continue // undone meanwhile, perhaps run again under the same id
		}
		delete(a.m, k)
		if out == nil {
			out = map[string][]string{}
		}
		out[o.home] = append(out[o.home], k)
	}
	return out
}

// Len is the number of commands remembered.
func (a *Answers) Len() int { return len(a.m) }

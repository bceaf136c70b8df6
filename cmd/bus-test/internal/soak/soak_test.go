package soak

import (
	"errors"
	"strings"
	"testing"
	"time"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

func held(tag, seq uint64, pages int) *grant {
	return &grant{id: "a", seq: seq, tag: tag, mapping: &data.Mapping{Segments: []data.Segment{{Bytes: make([]byte, pages*4096)}}}}
}

func TestPatternFindsWhatIsNotOurs(t *testing.T) {
	g := held(1, 7, 3)
	if err := g.arrive(true); err != nil {
		t.Fatalf("zero memory: %v", err)
	}
	g.write()
	if err := g.check(); err != nil {
		t.Fatal(err)
	}
	if err := g.arrive(false); err != nil {
		t.Fatalf("our own of before: %v", err)
	}
	if err := g.arrive(true); err == nil {
		t.Fatal("bytes in memory that was to be cleared pass")
	}
	other := &grant{id: "b", seq: 8, tag: 2, mapping: g.mapping}
	if err := other.arrive(false); err == nil || !strings.Contains(err.Error(), "page 0") {
		t.Fatalf("another owner's bytes: %v", err)
	}
	g.mapping.Segments[0].Bytes[2*4096+24] ^= 1
	if err := g.check(); err == nil || !strings.Contains(err.Error(), "page 2, word 3") {
		t.Fatalf("a changed page: %v", err)
	}
}

func TestJudge(t *testing.T) {
	refusal := schemas.Errorf(schemas.CodeOutOfMemory, "full")
	explained := schemas.Errorf(schemas.CodeOutOfMemory, "full")
	for _, k := range []string{"required_bytes", "available_bytes", "shortfall_bytes", "largest_grantable_bytes", "holders"} {
		explained.With(k, 1)
	}
	for _, c := range []struct {
		name string
		err  error
		down bool
		bad  bool
	}{
		{"done", nil, false, false},
		{"a refusal that explains", explained, false, false},
		{"one that does not", refusal, false, true},
		{"a code that may not be", schemas.Errorf(schemas.CodeInvalidRequest, "no"), false, true},
		{"no node", schemas.Errorf(schemas.CodeNoNode, "none"), false, true},
		{"no node while it is down", schemas.Errorf(schemas.CodeNoNode, "none"), true, false},
		{"a defect while it is down", schemas.Errorf(schemas.CodeInternalError, "oh"), true, true},
		{"no answer", errors.New("timeout"), false, true},
	} {
		x := newTruth()
		x.disturb(c.down)
		x.lastUp = time.Time{}
		x.judge(time.Now(), c.name, c.err, schemas.CodeOutOfMemory)
		if got := len(x.violations) > 0; got != c.bad {
			t.Errorf("%s: %q", c.name, x.violations)
		}
	}
}

func TestQueueOrder(t *testing.T) {
	s := &soak{truth: newTruth()}
	w := &watcher{s: s, queues: map[string][]*waiting{}}
	queued := func(id string, position int) {
		w.item(schemas.AllocationItem{Event: schemas.EventQueued, RequestID: id, DeviceID: "d", Position: position})
	}
	granted := func(id string) {
		w.item(schemas.AllocationItem{Event: schemas.EventAllocated, RequestID: id, DeviceID: "d"})
	}
	queued("a", 1)
	queued("b", 2)
	queued("first", 1) // by priority
	granted("first")
	granted("b") // a may still be at having its memory made
	if n := len(s.truth.violations); n != 0 {
		t.Fatal(s.truth.violations)
	}
	w.queues["d"][0].overtaken = time.Now().Add(-2 * overtakenTime)
	queued("c", 2)
	if n := len(s.truth.violations); n != 1 || !strings.Contains(s.truth.violations[0], "a on d still waits") {
		t.Fatal(s.truth.violations)
	}
}

func TestLimitIsHeldToTheHighestSinceTheLastLook(t *testing.T) {
	var l limitTrack
	l.settle("d", 100)
	l.settle("d", 50)
	if got := l.take("d"); got != 100 {
		t.Errorf("%d", got)
	}
	if got := l.take("d"); got != 50 {
		t.Errorf("%d", got)
	}
	// While a change is being made both count.
	l.raise("d", 20)
	for range 2 {
		if got := l.take("d"); got != 50 {
			t.Errorf("%d while it is lowered", got)
		}
	}
	l.settle("d", 20)
	l.raise("d", 70)
	for range 2 {
		if got := l.take("d"); got < 50 {
			t.Errorf("%d while it is raised", got)
		}
	}
	l.settle("d", 70)
	if got := l.take("d"); got != 70 {
		t.Errorf("%d", got)
	}
}

// What the node's own copies leave is known page by page.
func TestVolumeFindsWhatIsNotOurs(t *testing.T) {
	v := &volume{t: &tenant{tag: 1}, id: "a", cells: []cell{{seq: 7}, {filled: true}, {seq: 9, page: 4}}}
	page := 4096
	b := make([]byte, len(v.cells)*page)
	for i := range v.cells {
		copy(b[i*page:], v.head(i))
	}
	m := &data.Mapping{Segments: []data.Segment{{Bytes: b[:2*page]}, {Bytes: b[2*page:]}}}
	if err := v.compare(m); err != nil {
		t.Fatal(err)
	}
	// Its own tenant may get such pages, another must not.
	for tag, ok := range map[uint64]bool{1: true, 2: false} {
		g := &grant{id: "b", tag: tag, mapping: m}
		if err := g.arrive(false); (err == nil) != ok {
			t.Errorf("tenant %d: %v", tag, err)
		}
	}
	b[page+3] ^= 1
	if err := v.compare(m); err == nil || !strings.Contains(err.Error(), "page 1 of 3") {
		t.Errorf("a changed page: %v", err)
	}
	b[page+3] ^= 1
	if err := v.compare(&data.Mapping{Segments: m.Segments[:1]}); err == nil {
		t.Error("what is too short is taken")
	}
}

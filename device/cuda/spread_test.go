//go:build linux

package cuda

import (
	"context"
	"slices"
	"testing"
)

// A lane that becomes free goes to whoever waits for one, else to the oldest range that has
// something to do, else to nobody.
func TestFreeLanesGoWhereTheyAreNeeded(t *testing.T) {
	p := newLanes(&Driver{c: Config{CopyThreads: 1}})
	none := &spread{ctx: context.Background(), n: 8, next: 8, step: 4, crowded: p.crowded}
	some := &spread{ctx: context.Background(), n: 8, step: 4, crowded: p.crowded}
	p.enlist(none)
	p.enlist(some)
	if w := p.needy(); w != some {
		t.Errorf("a free lane goes to %p, not to %p, which has something to do", w, some)
	}
	some.extras.Done()
	p.waiting.Add(1)
	if w := p.needy(); w != nil {
		t.Error("a free lane does not go to who waits")
	}
	if _, _, ok := some.take(true, some.step); ok {
		t.Error("an extra lane stays where others wait")
	}
	p.waiting.Add(-1)
	if _, n, ok := some.take(true, some.step); !ok || n != 4 {
		t.Error("an extra lane finds nothing to do")
	}
	some.take(false, some.step)
	if some.more() || p.needy() != nil {
		t.Error("a range that is through takes lanes")
	}
	p.discharge(some)
	if len(p.list) != 1 {
		t.Errorf("%d ranges are listed", len(p.list))
	}
}

// The first pieces of a range grow, and all of them cover it.
func TestPiecesBeginSmall(t *testing.T) {
	const step = 4 << 20
	for _, c := range []struct {
		n, most int64
		want    []int64
	}{
		{16 << 20, step, []int64{1 << 20, 2 << 20, 3 << 20, 4 << 20, 4 << 20, 2 << 20}},
		{blockBytes + 1, step, []int64{blockBytes + 1}},
		{3 * blockBytes, blockBytes, []int64{blockBytes, blockBytes, blockBytes}},
		{16 << 20, 8 << 20, []int64{8 << 20, 8 << 20}}, // larger than a step: the caller knows why
	} {
		w := &spread{ctx: context.Background(), n: c.n, step: step, slow: 3}
		var got []int64
		sum := int64(0)
		for {
			at, n, ok := w.take(false, c.most)
			if !ok {
				break
			}
			if at != sum {
				t.Errorf("%d bytes: a piece at %d, not at %d", c.n, at, sum)
			}
			sum += n
			got = append(got, n)
		}
		if sum != c.n || !slices.Equal(got, c.want) {
			t.Errorf("%d bytes by %d: pieces %v, want %v", c.n, c.most, got, c.want)
		}
	}
}

// What runs in the background waits until nothing is being copied.
func TestMovingIsAwaited(t *testing.T) {
	var m moving
	m.pass()
	m.begin()
	m.begin()
	passed := make(chan struct{})
	waiting := func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.still != nil }
	go func() { m.pass(); close(passed) }()
	for !waiting() {
	}
	m.end()
	select {
	case <-passed:
		t.Error("passed while a copy was under way")
	default:
	}
	m.end()
	<-passed
}

package history

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
)

// record is a plain list of everything that was ever said to a history, without bound. What
// a history tells is held against it.
type record struct {
	looks []look
	took  [kinds][]lasted
}

type look struct {
	at, before clock.Instant // before: the look before it, or when its process began
	point      Point
	grown      Counters
}

type lasted struct {
	at clock.Instant
	d  time.Duration
}

// life has a history live through looks, pauses, take-overs and resets of its counters, and
// keeps the record of it. Looks are a second apart, or less where somebody asked.
func life(t *rapid.T, mem []byte, cfg Config, generation uint64) (*History, *record, clock.Instant) {
	h := must[*History](t)(Format(mem, cfg, generation))
	rec := &record{}
	now := t0.Add(time.Duration(rapid.IntRange(0, 3_600_000).Draw(t, "phase")) * time.Millisecond)
	for range rapid.IntRange(1, 5).Draw(t, "nodes") {
		var total Counters
		last, grants := now, int64(0)
		n := rapid.IntRange(1, 400).Draw(t, "looks")
		asks := rapid.IntRange(2, 9).Draw(t, "asks")
		busy := rapid.IntRange(1, 40).Draw(t, "busy")
		for i := range n {
			step := time.Second
			if i%asks == 1 {
				step = 300 * time.Millisecond // somebody asked meanwhile
			}
			now = now.Add(step)
			grown := Counters{}
			if i%busy == 0 {
				grown = Counters{Grants: int64(i%7 + 1), Releases: int64(i % 3), Refusals: int64(i % 2), Evictions: int64(i % 5), Hits: int64(i % 4), Loads: int64(i%4 + 1)}
			}
			total = total.Plus(grown)
			grants += grown.Grants
			p := Point{At: now, Used: int64((i*7919 + n) % 1000), Available: int64(i), Models: int64(i % 100), Level: uint8(i / 50 % 4)}
			p.Peak = p.Used + int64((i*31)%200)
			h.Add("d", p, total)
			rec.looks = append(rec.looks, look{now, last, p, grown})
			last = now
			if i%busy == 0 {
				k, d := Kind(i%int(kinds)), time.Duration(i*i+1)*time.Millisecond
				var o Histogram
				o.Observe(d)
				h.Took("d", k, &o, now)
				rec.took[k] = append(rec.took[k], lasted{now, d})
			}
		}
		now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "without")) * time.Second)
		h = must[*History](t)(Open(mem, cfg)) // the next node
	}
	return h, rec, now
}

// What a history tells of a window, at any resolution, is what the plain record says, to the
// resolution of the ring that reaches so far back: nothing is counted twice or forgotten, across take-overs too.
func TestAgainstAPlainRecord(t *testing.T) {
	mem, generation := make([]byte, headerBytes+PlaceBytes), uint64(0)
	rapid.Check(t, func(t *rapid.T) {
		generation++
		cfg := Config{Devices: 1, Bytes: rapid.SampledFrom([]int64{0, 1}).Draw(t, "bytes")} // an hour of seconds, or a minute
		h, rec, now := life(t, mem, cfg, generation)
		window := time.Duration(rapid.IntRange(1, 7200).Draw(t, "window")) * time.Second
		since := now.Add(-window)
		step := time.Duration(rapid.SampledFrom([]int{1, 2, 7, 60, 90, 600, 3600}).Draw(t, "step")) * time.Second
		ring := Fine
		if !h.of("d").fine.covers(since) {
			ring = Coarse
		}
		if r := h.Resolution("d", since); r != ring {
			t.Fatalf("resolution %v", r)
		}
		// A span belongs to the window when its last look does.
		spans := map[clock.Instant]clock.Instant{}
		for _, l := range rec.looks {
			spans[l.at/clock.Instant(ring)] = l.at
		}
		var want struct {
			grown Counters
			seen  time.Duration
			peak  int64
			last  Point
			level [4]bool
		}
		for _, l := range rec.looks {
			if spans[l.at/clock.Instant(ring)] <= since {
				continue
			}
			want.grown = want.grown.Plus(l.grown)
			want.peak = max(want.peak, l.point.Peak)
			want.last = l.point
			want.level[l.point.Level] = true
			want.seen += l.at.Sub(l.before)
		}
		var grown Counters
		var seen time.Duration
		var peak int64
		var last Point
		for i, p := range h.Series("d", since, step) {
			if i > 0 && p.At/clock.Instant(step) <= last.At/clock.Instant(step) {
				t.Fatalf("two points of one span of %v", step)
			}
			if !want.level[p.Level] {
				t.Fatalf("level %d was never seen", p.Level)
			}
			grown, seen, peak, last = grown.Plus(p.Grown), seen+p.Seen, max(peak, p.Peak), p
		}
		if grown != want.grown || peak != want.peak || (seen-want.seen).Abs() > time.Millisecond {
			t.Fatalf("window %v by %v: grown %+v seen %v peak %d, and not %+v %v %d", window, step, grown, seen, peak, want.grown, want.seen, want.peak)
		}
		if last.At != want.last.At || last.Used != want.last.Used || last.Available != want.last.Available || last.Models != want.last.Models {
			t.Fatalf("the last point is %+v, not %+v", last, want.last)
		}
		for k := range kinds {
			rec.percentiles(t, h, k, since, now)
		}
	})
}

// percentiles holds a window's percentiles against all durations of the spans that it touches.
func (rec *record) percentiles(t *rapid.T, h *History, k Kind, since, now clock.Instant) {
	span := clock.Instant(time.Minute)
	if now.Sub(since) > time.Hour {
		span = clock.Instant(time.Hour)
	}
	var all []time.Duration
	for _, x := range rec.took[k] {
		if x.at/span >= since/span {
			all = append(all, x.d)
		}
	}
	slices.SortFunc(all, func(a, b time.Duration) int { return cmp.Compare(a, b) })
	got := h.Durations("d", k, since, now)
	if got.Count != int64(len(all)) {
		t.Fatalf("%d durations of kind %d, not %d", got.Count, k, len(all))
	}
	if len(all) == 0 {
		return
	}
	if got.Max != all[len(all)-1] {
		t.Fatalf("the longest is %v, not %v", got.Max, all[len(all)-1])
	}
	for _, p := range []float64{50, 90, 99} {
		at := p / 100 * float64(len(all)-1)
		low, high := float64(all[int(math.Floor(at))]), float64(all[int(math.Ceil(at))])
		if x := float64(got.Percentile(p)); x < .979*low || x > 1.021*high {
			t.Fatalf("p%v is %v, which lies between %v and %v", p, time.Duration(x), time.Duration(low), time.Duration(high))
		}
	}
}

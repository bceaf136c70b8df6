package history

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
)

const t0 = clock.Instant(100 * time.Hour)

func after(d time.Duration) clock.Instant { return t0.Add(d) }

func TestSeconds(t *testing.T) {
	h := New(Config{Devices: 1})
	for i := range 120 {
		p := Point{At: after(time.Duration(i) * time.Second), Used: int64(i), Available: 1000 - int64(i), Level: uint8(i / 60)}
		if i == 30 {
			p.Peak = 500
		}
		h.Add("gpu-0", p, Counters{Grants: int64(2 * i)})
	}
	s := h.Series("gpu-0", after(59*time.Second), time.Second)
	if len(s) != 60 || s[0].Used != 60 || s[59].Available != 881 || s[0].Grown.Grants != 2 || s[0].Level != 1 {
		t.Fatalf("%d points, first %+v, last %+v", len(s), s[0], s[len(s)-1])
	}
	s = h.Series("gpu-0", t0-1, 40*time.Second)
	if len(s) != 3 || s[0].Used != 39 || s[0].Peak != 500 || s[0].Grown.Grants != 78 || s[1].Level != 1 {
		t.Fatalf("points %+v", s)
	}
	if len(h.Series("gpu-1", 0, time.Second)) != 0 {
		t.Error("a device of which nothing is known has a history")
	}
}

// A sum shares nothing with what it is made of, and what is taken may be used further.
func TestDurationsAreCopied(t *testing.T) {
	h := New(Config{Devices: 1})
	var o Histogram
	o.Observe(time.Second)
	h.Took("d", Load, &o, t0)
	o.Observe(time.Minute)
	sum := h.Durations("d", Load, 0, t0)
	sum.Observe(time.Hour)
	for _, window := range []time.Duration{time.Minute, 24 * time.Hour} {
		if got := h.Durations("d", Load, t0.Add(-window), t0); got.Count != 1 || got.Max != time.Second {
			t.Errorf("%d durations, at most %v, p50 %v", got.Count, got.Max, got.Percentile(50))
		}
	}
}

// Nine decades of durations stay within the bound of a sketch; the long ones keep their
// accuracy.
func TestASketchIsBounded(t *testing.T) {
	var h Histogram
	for d := time.Duration(1); d < 24*time.Hour; d += d/100 + 1 {
		h.Observe(d)
	}
	bins := 0
	h.sketch.GetPositiveValueStore().ForEach(func(int, float64) bool { bins++; return false })
	if bins > maxBins {
		t.Errorf("%d bins", bins)
	}
	if p := h.Percentile(100); p < 23*time.Hour || p > 24*time.Hour {
		t.Errorf("the longest is %v", p)
	}
}

// The rings forget their oldest points and never hold more than their bound; nothing that
// happened is lost from the sums while it is in reach.
func TestRingsAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := New(Config{Devices: rapid.IntRange(1, 2000).Draw(t, "devices"), Bytes: rapid.Int64Range(1, 1<<20).Draw(t, "bytes")})
		at, total := t0, Counters{}
		n := rapid.IntRange(1, 400).Draw(t, "samples")
		for range n {
			at = at.Add(time.Duration(rapid.IntRange(0, 90_000).Draw(t, "ms")) * time.Millisecond)
			total.Grants += int64(rapid.IntRange(0, 5).Draw(t, "grants"))
			h.Add("d", Point{At: at, Used: 1}, total)
		}
		s := h.of("d")
		if s.fine.len() > h.layout.fine || s.coarse.len() > h.layout.coarse {
			t.Fatalf("%d and %d points, bounds %v", s.fine.len(), s.coarse.len(), h.layout)
		}
		for _, r := range []*ring{&s.fine, &s.coarse} {
			n := 0
			r.each(func(*Point) { n++ })
			if n != r.len() {
				t.Fatalf("%d points in order of %d", n, r.len())
			}
		}
		if h.of("d").fine.covers(t0) {
			var sum int64
			for _, p := range h.Series("d", 0, time.Second) {
				sum += p.Grown.Grants
			}
			if sum != total.Grants {
				t.Fatalf("%d grants in the points, %d in all", sum, total.Grants)
			}
		}
	})
}

func TestAnHourOfSecondsAndADayOfMinutes(t *testing.T) {
	h := New(Config{Devices: 1})
	for i := 0; i < 30*3600; i++ {
		if i < 28*3600 {
			i += 5 // time flies
		}
		h.Add("d", Point{At: after(time.Duration(i) * time.Second), Used: int64(i)}, Counters{Grants: int64(i)})
	}
	end := after(30 * time.Hour)
	if r := h.Resolution("d", end.Add(-59*time.Minute)); r != Fine {
		t.Errorf("an hour back at %v", r)
	}
	if r := h.Resolution("d", end.Add(-2*time.Hour)); r != Coarse {
		t.Errorf("two hours back at %v", r)
	}
	if s := h.Series("d", end.Add(-48*time.Hour), time.Hour); len(s) < 24 || len(s) > 25 || s[5].Grown.Grants != 3600 {
		t.Errorf("%d hours, one %+v", len(s), s[5])
	}
}

func TestPercentilesAreOffByAFiftiethAtMost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(int64(2*time.Microsecond), int64(30*time.Minute)).Draw(t, "duration"))
		var h Histogram
		for range rapid.IntRange(1, 9).Draw(t, "times") {
			h.Observe(d)
		}
		for _, p := range []float64{50, 90, 99, 100} {
			got := h.Percentile(p)
			if got > h.Max || float64(got) < 0.979*float64(d) {
				t.Fatalf("%v: p%v is %v", d, p, got)
			}
		}
	})
	var h Histogram
	for i := range 1000 {
		h.Observe(time.Duration(i+1) * time.Millisecond)
	}
	for p, want := range map[float64]float64{50: 500, 90: 900, 99: 990} {
		if got := h.Percentile(p).Seconds() * 1000; got < want*0.979 || got > want*1.021 {
			t.Errorf("p%v is %v ms, want about %v", p, got, want)
		}
	}
	if h.Max != time.Second || (&Histogram{}).Percentile(99) != 0 {
		t.Errorf("max %v", h.Max)
	}
}

func TestDurationsOfAWindow(t *testing.T) {
	h := New(Config{Devices: 1})
	for i := range 180 {
		var o Histogram
		o.Observe(time.Duration(i) * time.Millisecond)
		h.Took("d", Load, &o, after(time.Duration(i)*time.Minute))
	}
	now := after(179 * time.Minute)
	short := h.Durations("d", Load, now.Add(-9*time.Minute), now)
	long := h.Durations("d", Load, now.Add(-24*time.Hour), now)
	other := h.Durations("d", Grant, 0, now)
	if short.Count != 10 || long.Count != 180 || other.Count != 0 || short.Max != 179*time.Millisecond {
		t.Errorf("%d in ten minutes, %d in a day, %d of another kind", short.Count, long.Count, other.Count)
	}
}

func TestSuspects(t *testing.T) {
	now := time.Unix(1e9, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	old := func(owner string, used time.Duration, f ...func(*Held)) Held {
		h := Held{Owner: owner, Bytes: 10, Created: ago(9 * time.Hour), LastUsed: ago(used)}
		for _, c := range f {
			c(&h)
		}
		return h
	}
	held := []Held{
		old("forgetful", time.Hour), old("forgetful", 20*time.Minute), old("forgetful", time.Second),
		old("at work", time.Hour, func(h *Held) { h.Mapped = true }),
		old("keeper", time.Hour, func(h *Held) { h.Kept = true }),
		old("prompt", 14*time.Minute),
	}
	for i := range 8 { // one each seven minutes, all still mapped
		held = append(held, Held{Owner: "growing", Bytes: 5, Created: ago(time.Duration(i)*7*time.Minute + time.Minute), LastUsed: now, Mapped: true})
	}
	for range 8 { // all at once
		held = append(held, Held{Owner: "batch", Bytes: 5, Created: ago(50 * time.Minute), LastUsed: now, Mapped: true})
	}
	s := Suspects(held, now, time.Hour)
	if len(s) != 2 || s[0].Owner != "growing" || s[0].Bytes != 40 || s[0].GrowthBytesPerHour != 40 {
		t.Fatalf("suspects %+v", s)
	}
	if s[1].Owner != "forgetful" || s[1].Bytes != 20 || s[1].OldestUnused != time.Hour {
		t.Fatalf("suspects %+v", s)
	}
}

func BenchmarkAdd(b *testing.B) {
	h := New(Config{Devices: 1})
	b.ReportAllocs()
	at := t0
	for b.Loop() {
		at = at.Add(time.Second)
		h.Add("d", Point{At: at, Used: 5}, Counters{})
	}
}

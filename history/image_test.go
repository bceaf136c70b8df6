package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
)

// oneDevice is memory for one device, small rings in it.
func oneDevice() ([]byte, Config) {
	return make([]byte, headerBytes+PlaceBytes), Config{Devices: 1, Bytes: 1}
}

func must[T any](t interface{ Fatal(...any) }) func(T, error) T {
	return func(v T, err error) T {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// told is all that a history tells of its devices, by reel.
func told(h *History) map[string]string {
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(h.series)) {
		s := h.series[name]
		for what, r := range map[string]*ring{"fine": &s.fine, "coarse": &s.coarse} {
			var b strings.Builder
			r.each(func(p *Point) { fmt.Fprintln(&b, *p) })
			out[name+" "+what] = b.String()
		}
		for k := range kinds {
			for what, x := range map[string]*spans{"short": &s.short[k], "long": &s.long[k]} {
				var b strings.Builder
				for i := range x.len() {
					var one Histogram
					n, ok := one.decode(x.at(i))
					fmt.Fprintln(&b, n, ok, one.Count, one.Max, one.Percentile(1), one.Percentile(50), one.Percentile(99))
				}
				out[fmt.Sprint(name, " ", what, k)] = b.String()
			}
		}
		out[name+" uses"] = fmt.Sprint(h.Uses(name))
	}
	return out
}

// records are what a device's reels hold.
func records(h *History, device string) (out []string) {
	for _, r := range h.of(device).reels() {
		var b strings.Builder
		for i := range r.len() {
			b.Write(r.at(i))
			b.WriteByte('|')
		}
		out = append(out, b.String())
	}
	return out
}

// something happens to a device for the i-th time.
func something(h *History, device string, i int) {
	at := t0.Add(time.Duration(i) * 7 * time.Second)
	h.Add(device, Point{At: at, Used: int64(100 + i), Models: int64(i), Available: int64(1000 - i), Level: uint8(i % 4)}, Counters{Grants: int64(i * i), Loads: int64(i)})
	var o Histogram
	for k := range i%5 + 1 {
		o.Observe(time.Duration(i*k) * time.Millisecond)
	}
	h.Took(device, Kind(i%int(kinds)), &o, at)
	h.Asked(device, []Use{{At: at, Model: uint64(i % 7), Bytes: 1 << 30, Cost: time.Second, Kind: Miss, Took: 2 * time.Second}, {At: at + 5, Model: 1, Bytes: 5, Kind: Hit}})
}

// What a history tells, its successor in the same memory tells too, and goes on.
func TestASuccessorTellsTheSame(t *testing.T) {
	mem := make([]byte, headerBytes+3*PlaceBytes)
	cfg := Config{Devices: 2, Bytes: 1}
	h := must[*History](t)(Format(mem, cfg, 1))
	for i := range 300 {
		something(h, "a", i)
		something(h, "", i)
	}
	next := must[*History](t)(Open(mem, cfg))
	if want, got := told(h), told(next); !reflect.DeepEqual(want, got) || len(got) != 18 {
		t.Fatalf("a successor tells %v, not %v", got, want)
	}
	before := len(next.Uses("a"))
	something(next, "a", 300)
	something(next, "b", 300)
	third := must[*History](t)(Open(mem, cfg))
	if !reflect.DeepEqual(told(next), told(third)) || len(third.Uses("a")) != before+2 {
		t.Fatal("the third tells something else")
	}
}

// There is room for so many devices; who was not looked at since makes room for who is.
func TestADeviceThatIsGoneMakesRoom(t *testing.T) {
	mem := make([]byte, headerBytes+2*PlaceBytes)
	h := must[*History](t)(Format(mem, Config{Devices: 2}, 1))
	something(h, "a", 1)
	something(h, "b", 1)
	something(h, "c", 1) // in memory of its own
	h = must[*History](t)(Open(mem, Config{Devices: 2}))
	if got := slices.Sorted(maps.Keys(h.series)); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("it knows %v", got)
	}
	something(h, "b", 2)
	something(h, "c", 2)
	h = must[*History](t)(Open(mem, Config{Devices: 2}))
	if got := slices.Sorted(maps.Keys(h.series)); !slices.Equal(got, []string{"b", "c"}) || len(h.Series("c", 0, time.Second)) != 1 || len(h.Series("b", 0, time.Second)) != 2 {
		t.Fatalf("it knows %v", got)
	}
	something(h, strings.Repeat("x", maxName+1), 1)
}

// More devices leave each less room, fewer more: what is kept moves.
func TestTheRingsChangeTheirSize(t *testing.T) {
	mem := make([]byte, headerBytes+2*PlaceBytes)
	large, small := Config{Devices: 1}, Config{Devices: 1, Bytes: 1}
	h := must[*History](t)(Format(mem, large, 1))
	for i := range 100 {
		something(h, "a", i)
	}
	h = must[*History](t)(Open(mem, small))
	points := h.Series("a", 0, time.Second)
	if h.of("a").fine.len() != least || len(points) != 12 || points[11].Grown.Grants == 0 || len(h.Uses("a")) != 200 {
		t.Fatalf("%d points of %d, %d uses", len(points), h.of("a").fine.len(), len(h.Uses("a")))
	}
	all := told(h)
	h = must[*History](t)(Open(mem, large))
	if !reflect.DeepEqual(told(h), all) || h.layout.fine != maxFine {
		t.Fatalf("with more room it tells %v, not %v", told(h), all)
	}
	something(h, "a", 101)
	if len(must[*History](t)(Open(mem, large)).Uses("a")) != 202 {
		t.Error("it does not go on")
	}
}

func TestWhatCannotBeReadBeginsAnew(t *testing.T) {
	mem, cfg := oneDevice()
	if _, err := Open(mem, cfg); !errors.Is(err, ErrNew) {
		t.Errorf("of new memory: %v", err)
	}
	if _, err := Open(mem[:headerBytes], cfg); !errors.Is(err, ErrUnreadable) {
		t.Errorf("of too little: %v", err)
	}
	if _, err := Format(mem[:headerBytes], cfg, 1); err == nil {
		t.Error("too little memory was taken")
	}
	h := must[*History](t)(Format(mem, cfg, 1))
	something(h, "a", 1)
	for off, want := range map[int]string{offMagic: "begin", offVersion: "version 2", offFine: "header", offGeneration: "header", offSum: "header"} {
		broken := slices.Clone(mem)
		broken[off] ^= 3
		if _, err := Open(broken, cfg); !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), want) {
			t.Errorf("byte %d: %v", off, err)
		}
	}
	// What an earlier history left there is void, though it was never cleared.
	h = must[*History](t)(Format(mem, cfg, 2))
	if len(h.Series("a", 0, time.Second)) != 0 || len(h.Uses("a")) != 0 || len(must[*History](t)(Open(mem, cfg)).Series("a", 0, time.Second)) != 0 {
		t.Error("a history that begins anew tells of an earlier one")
	}
}

// Wherever its writer dies, a history tells of each thing what it did before or what it was
// about to tell, and nothing else.
func TestAWriterDiesAtAnyStore(t *testing.T) {
	mem, cfg := oneDevice()
	h := must[*History](t)(Format(mem, cfg, 1))
	for i := range 70 { // the rings are full
		something(h, "a", 2*i)
	}
	cut := make([]byte, len(mem))
	var cuts [][]string
	stores := 0
	h.stored = func() {
		if stores++; stores%23 != 0 && stores > 60 {
			return // long records look alike in their middle
		}
		copy(cut, mem)
		cuts = append(cuts, records(must[*History](t)(Open(cut, cfg)), "a"))
	}
	for _, r := range h.of("a").reels() {
		r.stored = h.stored
	}
	before := records(h, "a")
	for i := 139; i < 142; i++ {
		cuts, stores = nil, 0
		something(h, "a", i)
		after, changed := records(h, "a"), 0
		for n, got := range cuts {
			for what, x := range got {
				if x != before[what] && x != after[what] {
					t.Fatalf("step %d, cut %d: reel %d is\n%q\nneither what was before\n%q\nnor what comes\n%q", i, n, what, x, before[what], after[what])
				}
				if x != before[what] {
					changed++
				}
			}
		}
		if len(cuts) < 50 || changed == 0 || reflect.DeepEqual(before, after) {
			t.Fatalf("%d cuts, of which %d show something: that proves nothing", len(cuts), changed)
		}
		before = after
	}
}

// A header that is written halfway is none.
func TestAWriterDiesInFormat(t *testing.T) {
	mem, cfg := oneDevice()
	_ = must[*History](t)(Format(mem, cfg, 1))
	binary.LittleEndian.PutUint64(mem[offMagic:], 0)
	if _, err := Open(mem, cfg); !errors.Is(err, ErrNew) {
		t.Errorf("it opens: %v", err)
	}
}

// A time without a node is a gap, at every resolution, and the rates heed it.
func TestTimeWithoutANodeIsAGap(t *testing.T) {
	mem := make([]byte, headerBytes+PlaceBytes)
	h := must[*History](t)(Format(mem, Config{Devices: 1}, 1))
	for i := range 600 {
		h.Add("d", Point{At: after(time.Duration(i+1) * time.Second), Used: 5}, Counters{Grants: int64(2 * i)})
	}
	h = must[*History](t)(Open(mem, Config{Devices: 1}))
	for i := range 600 {
		h.Add("d", Point{At: after(20*time.Minute + time.Duration(i+1)*time.Second), Used: 5}, Counters{Grants: int64(2 * i)})
	}
	check := func(what string, slack time.Duration) {
		t.Helper()
		g := h.Gaps("d", t0)
		if len(g) != 1 || g[0].From != after(10*time.Minute) || g[0].To.Sub(after(20*time.Minute)).Abs() > slack {
			t.Fatalf("%s: gaps %v", what, g)
		}
		var seen time.Duration
		var grants int64
		for _, p := range h.Series("d", t0, time.Minute) {
			if at := p.At.Sub(t0); at > 10*time.Minute && at <= 20*time.Minute {
				t.Errorf("%s: a point at %v", what, at)
			}
			seen += p.Seen
			grants += p.Grown.Grants
		}
		if seen != 20*time.Minute || grants != 2*1198 {
			t.Errorf("%s: %v seen, %d grants", what, seen, grants)
		}
	}
	check("seconds", 0)
	last := after(30 * time.Minute)
	for i := range 3600 {
		last = last.Add(time.Second)
		h.Add("d", Point{At: last, Used: 5}, Counters{Grants: 2 * 599})
		_ = i
	}
	if h.Resolution("d", t0) != Coarse {
		t.Fatal("seconds reach too far back")
	}
	g := h.Gaps("d", t0)
	if len(g) != 1 || g[0].To.Sub(g[0].From) != 10*time.Minute {
		t.Fatalf("minutes: gaps %v", g)
	}
	// A machine that slept is no different.
	h.Add("d", Point{At: last.Add(time.Hour)}, Counters{})
	if g := h.Gaps("d", last-5); len(g) != 1 || g[0].To.Sub(g[0].From) != time.Hour-time.Second {
		t.Fatalf("asleep: gaps %v", g)
	}
}

// All that a sketch tells is kept; what finds no room is told less exactly, at the short end.
func TestSketchesAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h, back Histogram
		for range rapid.IntRange(0, 60).Draw(t, "durations") {
			h.Observe(time.Duration(rapid.Int64Range(0, 1<<rapid.IntRange(1, 45).Draw(t, "bits")).Draw(t, "d")))
		}
		b := h.encode(7, sketchBytes-recordHeader)
		n, ok := back.decode(b)
		if !ok || n != 7 || back.Count != h.Count || back.Max != h.Max {
			t.Fatalf("%v, %d: %d durations, at most %v", ok, n, back.Count, back.Max)
		}
		for _, p := range []float64{0, 1, 50, 90, 99, 100} {
			if h.Percentile(p) != back.Percentile(p) {
				t.Fatalf("p%v is %v, not %v", p, back.Percentile(p), h.Percentile(p))
			}
		}
	})
	var wide, back Histogram
	for d := time.Microsecond; d < time.Hour; d += d/40 + 1 {
		for range 1000 {
			wide.Observe(d)
		}
	}
	b := wide.encode(1, 600)
	if _, ok := back.decode(b); !ok || len(b) > 600 || back.Count != wide.Count || back.Percentile(99) != wide.Percentile(99) || back.Percentile(1) <= wide.Percentile(1) {
		t.Errorf("%d bytes, %d of %d durations, p99 %v of %v", len(b), back.Count, wide.Count, back.Percentile(99), wide.Percentile(99))
	}
}

// Uses are kept as they came, the newest of them in any case.
func TestUsesAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem, cfg := oneDevice()
		h := must[*History](t)(Format(mem, cfg, 1))
		var all []Use
		at := clock.Instant(5)
		for range rapid.IntRange(0, 30).Draw(t, "times") {
			var some []Use
			for range rapid.IntRange(0, 60).Draw(t, "uses") {
				at += clock.Instant(rapid.Int64Range(0, 1<<rapid.IntRange(1, 40).Draw(t, "bits")).Draw(t, "ns"))
				m := rapid.Uint64Range(0, 20).Draw(t, "model")
				u := Use{At: at, Model: m, Bytes: int64(m) << 30, Cost: time.Duration(m), Kind: UseKind(rapid.IntRange(0, int(useKinds)-1).Draw(t, "kind"))}
				if u.Kind == Miss {
					u.Took = time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "took"))
				}
				some = append(some, u)
			}
			h.Asked("d", some)
			all = append(all, some...)
			if rapid.IntRange(0, 3).Draw(t, "successor") == 0 {
				h = must[*History](t)(Open(mem, cfg))
			}
		}
		if got := h.Uses("d"); !slices.Equal(got, all) {
			t.Fatalf("%d uses of %d", len(got), len(all))
		}
	})
	mem, cfg := oneDevice()
	h := must[*History](t)(Format(mem, cfg, 1))
	const n = 60_000
	for i := range n / 100 {
		var some []Use
		for j := range 100 {
			some = append(some, Use{At: clock.Instant(100*i+j) * clock.Instant(time.Second), Model: uint64(j % 50), Bytes: 1 << 30, Cost: time.Second})
		}
		h.Asked("d", some)
	}
	got := h.Uses("d")
	if len(got) < 15_000 || got[len(got)-1].At != (n-1)*clock.Instant(time.Second) || got[0].At != clock.Instant(n-len(got))*clock.Instant(time.Second) {
		t.Errorf("%d uses are remembered", len(got))
	}
}

// What was counted before a history began anew, in the same process, is not counted again.
func TestCountersGoOnWhereAHistoryBeginsAnew(t *testing.T) {
	mem, cfg := oneDevice()
	h := must[*History](t)(Format(mem, cfg, 1))
	h.Add("d", Point{At: t0}, Counters{Grants: 100})
	next := must[*History](t)(Format(mem, cfg, 2))
	next.Continue(h)
	next.Add("d", Point{At: after(2 * time.Second)}, Counters{Grants: 103})
	if s := next.Series("d", 0, time.Second); len(s) != 1 || s[0].Grown.Grants != 3 || s[0].Seen != 2*time.Second {
		t.Errorf("points %+v", s)
	}
}

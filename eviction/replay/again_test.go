package replay

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
)

// alone is the beginning of a trace, one model a request, both as a trace and as the uses that
// a node would have seen; and the bytes of its models.
func alone(t *Trace, requests int, cost string) (*Trace, []Use, int64) {
	cut := &Trace{Models: t.Models, Assignments: t.Assignments}
	var uses []Use
	var total int64
	objects := t.Assignments[0].Costs[cost]
	known := map[int]bool{}
	for _, needs := range t.Requests {
		for _, i := range needs {
			if len(uses) == requests {
				return cut, uses, total
			}
			if !known[i] {
				known[i] = true
				total += objects[i].Bytes
			}
			uses = append(uses, Use{At: clock.Instant(len(uses)) * clock.Instant(time.Second), Object: objects[i], Load: objects[i].Cost})
			cut.Requests = append(cut.Requests, []int{i})
		}
	}
	return cut, uses, total
}

func again(t interface{ Fatal(...any) }, uses []Use, room Room, policy string) Result {
	p, err := eviction.New(policy)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Again(uses, room, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What a node saw costs what the same trace costs, by every policy.
func TestAgainIsTheSameReplay(t *testing.T) {
	whole, _ := published(t)
	trace, uses, total := alone(whole, 1500, Measured)
	for _, name := range eviction.Names() {
		p, err := eviction.New(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := trace.Run(Bound{Cost: Measured, Seed: trace.Assignments[0].Seed, Capacity: total / 4, Seconds: 1}, p)
		if err != nil {
			t.Fatal(err)
		}
		got := again(t, uses, Room{Bytes: total / 4}, name)
		if want.Evictions == 0 || got.Seconds != want.Seconds || got.Loads != want.Loads || got.Evictions != want.Evictions || got.Unserved != want.Unserved {
			t.Errorf("%s: %+v, in the trace %+v", name, got, want)
		}
	}
}

// More room is never told as much worse, and with room for everything nothing is loaded twice.
// A policy that learns is not bound to win by every byte: the most that it lost is logged.
func TestMoreRoomIsNotWorse(t *testing.T) {
	whole, _ := published(t)
	for _, cost := range []string{Measured, Bandwidth} {
		_, uses, total := alone(whole, 1500, cost)
		worst, before := 0., 0.
		for percent := int64(5); percent <= 100; percent += 5 {
			room := Room{Bytes: total / 100 * percent}
			if percent == 100 {
				room.Bytes = total
			}
			r := again(t, uses, room, eviction.DefaultName)
			if before > 0 {
				worst = max(worst, r.Seconds/before-1)
			}
			before = r.Seconds
			if percent == 100 && (r.Evictions != 0 || r.Loads != distinct(uses)) {
				t.Errorf("%s: with room for all of %d: %+v", cost, distinct(uses), r)
			}
		}
		t.Logf("%s: with a twentieth of the bytes more, at most %.1f %% more seconds", cost, 100*worst)
		if worst > .05 {
			t.Errorf("%s: %.1f %% more seconds with more room", cost, 100*worst)
		}
	}
}

func distinct(uses []Use) int {
	keys := map[string]bool{}
	for _, u := range uses {
		keys[u.Object.Key] = true
	}
	return len(keys)
}

// Whatever is asked for: no replay is below the first loads, a model that does not fit costs
// each time, what a client lets go of is loaded anew, and LRU with models of one size loads
// never more with more room.
func TestAgainOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "models")
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 100), n, n).Draw(t, "sizes")
		var uses []Use
		least, gone, asked := 0., map[int]bool{}, 0
		for i := range rapid.IntRange(1, 120).Draw(t, "uses") {
			m := rapid.IntRange(0, n-1).Draw(t, "model")
			u := Use{At: clock.Instant(i), Object: eviction.Object{Key: string(rune('a' + m)), Bytes: sizes[m], Cost: float64(m + 1)}, Load: float64(m + 1), Kind: UseKind(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2}).Draw(t, "kind"))}
			uses = append(uses, u)
			switch there, known := gone[m]; u.Kind {
			case Asked:
				asked++
				if !known || there {
					least += u.Object.Cost
				}
				gone[m] = false
			case LetGo:
				gone[m] = true
			}
		}
		room := Room{Bytes: rapid.Int64Range(0, 400).Draw(t, "room")}
		if rapid.Bool().Draw(t, "relief") {
			room.High = rapid.Int64Range(1, 400).Draw(t, "high")
			room.Low = rapid.Int64Range(0, room.High).Draw(t, "low")
		}
		r := again(t, slices.Clone(uses), room, eviction.DefaultName)
		if r.Seconds < least || r.Loads > asked || r.Unserved > r.Loads {
			t.Fatalf("%+v of %d requests, at least %v s", r, asked, least)
		}
		if all := again(t, uses, Room{Bytes: 1 << 40}, eviction.DefaultName); all.Seconds != least || all.Evictions+all.Unserved != 0 {
			t.Fatalf("with room for everything %+v, at least %v s", all, least)
		}
		for i := range uses {
			uses[i].Object.Bytes = 10
		}
		before := again(t, uses, Room{Bytes: 10}, "lru").Loads
		for bytes := int64(20); bytes <= 120; bytes += 10 {
			now := again(t, uses, Room{Bytes: bytes}, "lru").Loads
			if now > before {
				t.Fatalf("lru loads %d times with %d bytes, %d with 10 less", now, bytes, before)
			}
			before = now
		}
	})
}

// Where pressure releases models, there are never more than it allows when a request is done.
func TestPressureReleasesInAReplay(t *testing.T) {
	var uses []Use
	for i := range 40 {
		uses = append(uses, Use{At: clock.Instant(i), Object: eviction.Object{Key: string(rune('a' + i%10)), Bytes: 10, Cost: 1}, Load: 2})
	}
	if r := again(t, uses, Room{Bytes: 100}, "lru"); r.Loads != 10 || r.Seconds != 20 || r.Evictions != 0 {
		t.Errorf("without pressure %+v", r)
	}
	// Nine models are too many, eight stay: so each request finds its own gone.
	if r := again(t, uses, Room{Bytes: 100, High: 85, Low: 80}, "lru"); r.Loads != 40 || r.Evictions != 32 {
		t.Errorf("with pressure %+v", r)
	}
}

// forgetful hears what is removed.
type forgetful struct {
	eviction.Policy
	removed []string
}

func (f *forgetful) Removed(key string) {
	f.removed = append(f.removed, key)
	f.Policy.Removed(key)
}

// What a client lets go of the policy forgets, as it does in the node; what is only touched is
// not loaded.
func TestAgainTellsThePolicyEverything(t *testing.T) {
	o := eviction.Object{Key: "a", Bytes: 1, Cost: 1}
	p := &forgetful{Policy: eviction.NewLRU()}
	r, err := Again([]Use{{At: 1, Object: o, Kind: Touched}, {At: 2, Object: o, Load: 3}, {At: 3, Object: o, Kind: LetGo}, {At: 4, Object: o, Kind: Touched}}, Room{Bytes: 5}, p)
	if err != nil || r.Loads != 1 || r.Seconds != 3 || !slices.Equal(p.removed, []string{"a"}) {
		t.Errorf("%+v, %v, removed %v", r, err, p.removed)
	}
}

func BenchmarkAgain(b *testing.B) {
	whole, _ := published(b)
	_, uses, total := alone(whole, 5000, Measured)
	b.Logf("%d models", distinct(uses))
	for b.Loop() {
		if _, err := Again(uses, Room{Bytes: total / 4}, eviction.NewCost(eviction.DefaultRemembered)); err != nil {
			b.Fatal(err)
		}
	}
}

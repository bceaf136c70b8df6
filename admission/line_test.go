package admission_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/admission"
)

type spot = admission.Spot[int]

// naive is the stated order, worked out from scratch: from those who wait and what was
// served since somebody last had to wait.
type naive struct {
	weights  map[string]float64
	waiting  []*guest // by age
	finish   map[string]float64
	now      float64
	overtook map[uint64]int    // by younger ones that were served
	eldest   map[uint64]uint64 // by age: the lowest of those that were served while it waited, and its own
}

// key is who has waited for longest, of a tenant's that wait and of those served while they did.
func (n *naive) key(tenant string) uint64 {
	key := uint64(math.MaxUint64)
	for _, g := range n.waiting {
		if g.Tenant == tenant {
			key = min(key, n.eldest[g.Age])
		}
	}
	return key
}

type guest struct {
	*spot
	since float64
}

func (n *naive) weight(tenant string) float64 { return n.weights[tenant] }

// lane is a tenant's waiters in order: each, in order of age, goes before those of lower
// priority, but not before one who was overtaken often enough.
func (n *naive) lane(tenant string) (lane []*guest) {
	overtaken := map[uint64]int{}
	for _, g := range n.waiting {
		if g.Tenant != tenant {
			continue
		}
		overtaken[g.Age] = n.overtook[g.Age]
		i := len(lane)
		for i > 0 && lane[i-1].Priority < g.Priority && overtaken[lane[i-1].Age] < admission.Overtakings {
			i--
		}
		lane = slices.Insert(lane, i, g)
		for _, y := range lane[i+1:] {
			overtaken[y.Age]++
		}
	}
	return lane
}

// order is that of everybody, and the time of each one's turn.
func (n *naive) order() (order []*guest, turns map[uint64]float64) {
	turns = map[uint64]float64{}
	for tenant := range n.weights {
		lane := n.lane(tenant)
		at := math.Inf(1)
		for _, g := range lane {
			at = min(at, g.since)
		}
		at = max(at, n.finish[tenant])
		for _, g := range lane {
			turns[g.Age] = at
			at += float64(g.Bytes) / n.weights[tenant]
		}
		order = append(order, lane...)
	}
	slices.SortFunc(order, func(a, b *guest) int {
		if c := cmp.Compare(turns[a.Age], turns[b.Age]); c != 0 {
			return c
		}
		return cmp.Compare(n.key(a.Tenant), n.key(b.Tenant))
	})
	return order, turns
}

func (n *naive) add(s *spot) {
	n.waiting = append(n.waiting, &guest{s, n.now})
	n.eldest[s.Age] = s.Age
}

func (n *naive) remove(s *spot) {
	n.waiting = slices.DeleteFunc(n.waiting, func(g *guest) bool { return g.spot == s })
	if len(n.waiting) == 0 {
		n.finish, n.now = map[string]float64{}, 0
	}
}

func (n *naive) serve(s *spot) {
	_, turns := n.order()
	turn := turns[s.Age]
	n.now = max(n.now, turn)
	n.finish[s.Tenant] = turn + float64(s.Bytes)/n.weights[s.Tenant]
	for _, g := range n.waiting {
		if g.Tenant == s.Tenant && g.Age < s.Age {
			n.overtook[g.Age]++
		}
		if g.Tenant == s.Tenant {
			n.eldest[g.Age] = min(n.eldest[g.Age], n.eldest[s.Age])
		}
	}
	n.remove(s)
}

func newNaive(weights map[string]float64) *naive {
	return &naive{weights: weights, finish: map[string]float64{}, overtook: map[uint64]int{}, eldest: map[uint64]uint64{}}
}

func ages(spots []*spot) string {
	var out []uint64
	for _, s := range spots {
		out = append(out, s.Age)
	}
	return fmt.Sprint(out)
}

func (n *naive) ages() string {
	order, _ := n.order()
	var out []*spot
	for _, g := range order {
		out = append(out, g.spot)
	}
	return ages(out)
}

// A line is in the stated order after every step of a random history, what it says of a
// newcomer's place comes true, and the next is served.
func TestOrderIsAsStated(t *testing.T) {
	steps, most := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		weights := map[string]float64{"red": 1, "green": 2, "blue": .5}
		model := newNaive(weights)
		line := admission.NewLine[int](model.weight)
		age := uint64(0)
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			steps++
			switch waiting := line.List(); rapid.IntRange(0, 5).Draw(t, "step") {
			default:
				age++
				s := &spot{Tenant: rapid.SampledFrom([]string{"red", "green", "blue"}).Draw(t, "tenant"), Priority: rapid.IntRange(0, 2).Draw(t, "priority"),
					Age: age, Bytes: rapid.Int64Range(1, 64).Draw(t, "blocks") * 4096}
				want, ahead := line.Where(s.Tenant, s.Priority, s.Age), slices.Collect(line.Ahead(s.Tenant, s.Priority, s.Age))
				if got := line.Add(s); got != want || line.List()[got] != s || ages(ahead) != ages(line.List()[:got]) {
					t.Fatalf("request %d was to have %d before it, %s, has %d, in %s", s.Age, want, ages(ahead), got, ages(line.List()))
				}
				model.add(s)
				most = max(most, line.Len())
			case 0:
				if len(waiting) > 0 {
					s := waiting[rapid.IntRange(0, len(waiting)-1).Draw(t, "who leaves")]
					line.Remove(s)
					model.remove(s)
				}
			case 1:
				if s := line.Head(); s != nil {
					line.Serve(s)
					model.serve(s)
				}
			}
			if got, want := ages(line.List()), model.ages(); got != want {
				t.Fatalf("the order is %s, should be %s", got, want)
			}
			if err := line.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Logf("%d steps, at most %d waited", steps, most)
}

// A hundred who wait are served in the order that the line told beforehand, which is the
// stated one.
func TestAHundredAreServedInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := newNaive(map[string]float64{"red": 1, "green": 3, "blue": 1})
		line := admission.NewLine[int](model.weight)
		for age := range uint64(100) {
			s := &spot{Tenant: rapid.SampledFrom([]string{"red", "green", "blue"}).Draw(t, "tenant"), Priority: rapid.IntRange(-1, 2).Draw(t, "priority"),
				Age: age + 1, Bytes: 1 << rapid.IntRange(12, 30).Draw(t, "size")}
			line.Add(s)
			model.add(s)
		}
		told, stated := ages(line.List()), model.ages()
		var served []*spot
		for line.Len() > 0 {
			s := line.Head()
			line.Serve(s)
			served = append(served, s)
			if err := line.Check(); err != nil {
				t.Fatal(err)
			}
		}
		if got := ages(served); got != told || got != stated {
			t.Fatalf("served %s, told %s, stated %s", got, told, stated)
		}
	})
}

// Who leaves without being served leaves the order as if he had never come: two lines with
// the same history but for those who gave up are the same in all that follows.
func TestNoTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weight := func(tenant string) float64 { return map[string]float64{"red": 1, "green": 2}[tenant] }
		with, without := admission.NewLine[int](weight), admission.NewLine[int](weight)
		other := map[*spot]*spot{}
		var ghosts []*spot
		age := uint64(0)
		arrive := func(ghost bool) {
			age++
			s := &spot{Tenant: rapid.SampledFrom([]string{"red", "green"}).Draw(t, "tenant"), Priority: rapid.IntRange(0, 3).Draw(t, "priority"),
				Age: age, Bytes: rapid.OneOf(rapid.Int64Range(1, 2), rapid.Int64Range(1, 1<<20)).Draw(t, "bytes")} // small ones, for turns at the same time
			if with.Add(s); ghost {
				ghosts = append(ghosts, s)
				return
			}
			twin := *s
			twin = spot{Tenant: s.Tenant, Priority: s.Priority, Age: s.Age, Bytes: s.Bytes}
			other[s] = &twin
			without.Add(&twin)
		}
		// Somebody always waits, so that the accounts go on in both.
		for range rapid.IntRange(2, 120).Draw(t, "arrivals") {
			arrive(rapid.IntRange(0, 2).Draw(t, "who gives up") == 0)
			if h := with.Head(); rapid.IntRange(0, 2).Draw(t, "serve") == 0 && other[h] != nil && without.Len() > 1 && without.Head() == other[h] {
				with.Serve(h)
				without.Serve(other[h])
			}
		}
		for _, g := range ghosts {
			with.Remove(g)
		}
		for range 3 {
			if got, want := ages(with.List()), ages(without.List()); got != want {
				t.Fatalf("with those who gave up %s, without them %s", got, want)
			}
			if err := with.Check(); err != nil {
				t.Fatal(err)
			}
			arrive(false)
			for with.Len() > 3 {
				h := with.Head()
				if without.Head() != other[h] {
					t.Fatalf("request %d is served, without those who gave up %d is", h.Age, without.Head().Age)
				}
				with.Serve(h)
				without.Serve(other[h])
			}
		}
	})
}

// Who passes changes nobody's place, and his tenant pays for it all the same.
func TestPassingChangesNobodysPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := admission.NewLine[int](func(string) float64 { return 1 })
		for age := range uint64(40) {
			line.Add(&spot{Tenant: rapid.SampledFrom([]string{"red", "green", "blue"}).Draw(t, "tenant"), Priority: rapid.IntRange(0, 1).Draw(t, "priority"),
				Age: age + 1, Bytes: rapid.Int64Range(1, 100).Draw(t, "bytes")})
		}
		for line.Len() > 0 {
			all := line.List()
			i := rapid.IntRange(0, len(all)-1).Draw(t, "who passes")
			line.Pass(all[i])
			if err := line.Check(); err != nil {
				t.Fatal(err)
			}
			if got, want := ages(line.List()), ages(slices.Delete(slices.Clone(all), i, i+1)); got != want {
				t.Fatalf("after request %d has passed the order is %s, was %s", all[i].Age, got, want)
			}
		}
	})
	line := admission.NewLine[int](func(string) float64 { return 1 })
	for age := range uint64(3) {
		line.Add(&spot{Tenant: "red", Age: age + 1, Bytes: 100})
	}
	line.Add(&spot{Tenant: "green", Age: 4, Bytes: 100})
	line.Add(&spot{Tenant: "green", Age: 5, Bytes: 100})
	// 1 4 2 5 3: green's second passes, and counts as if it had been served in its turn.
	line.Pass(line.List()[3])
	line.Add(&spot{Tenant: "green", Age: 6, Bytes: 100})
	if got := ages(line.List()); got != "[1 4 2 3 6]" {
		t.Fatalf("after one has passed the order is %s", got)
	}
}

// Who comes back stands before everybody, and costs his tenant nothing more.
func TestReturned(t *testing.T) {
	line := admission.NewLine[int](func(string) float64 { return 1 })
	for age := range uint64(4) {
		line.Add(&spot{Tenant: []string{"red", "green"}[age%2], Age: age + 1, Bytes: 100})
	}
	first, second := line.Head(), line.List()[1]
	line.Serve(first)
	line.Serve(second)
	line.Return(second)
	line.Return(first)
	if got := ages(line.List()); got != "[1 2 3 4]" || line.Head() != first || !first.Waiting() {
		t.Fatalf("the order is %s", got)
	}
	line.Serve(first)
	line.Remove(second)
	if got := ages(line.List()); got != "[3 4]" || first.Waiting() || second.Waiting() {
		t.Fatalf("the order is %s", got)
	}
	if err := line.Check(); err != nil {
		t.Fatal(err)
	}
}

// Weights that change hold from then on.
func TestReweigh(t *testing.T) {
	weight := map[string]float64{}
	line := admission.NewLine[int](func(tenant string) float64 { return weight[tenant] })
	for age := range uint64(6) {
		line.Add(&spot{Tenant: []string{"red", "green"}[age%2], Age: age + 1, Bytes: 100})
	}
	if got := ages(line.List()); got != "[1 2 3 4 5 6]" {
		t.Fatalf("the order is %s", got)
	}
	weight["green"] = 3
	line.Reweigh()
	if got := ages(line.List()); got != "[1 2 4 6 3 5]" {
		t.Fatalf("with thrice the weight the order is %s", got)
	}
	weight["green"], weight["red"] = math.NaN(), -1
	line.Reweigh()
	if got := ages(line.List()); got != "[1 2 3 4 5 6]" {
		t.Fatalf("with impossible weights the order is %s", got)
	}
}

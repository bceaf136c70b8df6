package eviction

import (
	"cmp"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/clock"
)

// naive makes a plan as MakePlan says that it does: with everything in order, and looked at one
// after the other.
func naive(p Policy, r Request, now clock.Instant) Plan {
	need := r.Need - r.Already
	if need <= 0 {
		return Plan{}
	}
	var plan Plan
	terms := func(c *Candidate) Terms {
		if c.Group < len(r.Terms) {
			return r.Terms[c.Group]
		}
		return Terms{}
	}
	var all []ranked
	stays := make([]string, len(r.Candidates))
	for i := range r.Candidates {
		c := &r.Candidates[i]
		t := terms(c)
		if stays[i] = unevictable(c, &t, r.Force); stays[i] != "" {
			continue
		}
		x := ranked{value: p.Value(c.Key, now), bytes: c.Bytes, index: int32(i), class: int64(c.Priority)}
		if t.Weight > 0 {
			x.value *= t.Weight
		}
		if c.Readers > 0 {
			x.class += 1 << 36
		}
		if t.First {
			x.class -= 1 << 35
		}
		if c.Doubled {
			x.class -= 1 << 34
		}
		if c.LastVictim {
			x.class += 1 << 40
		}
		all = append(all, x)
	}
	order := sequence{r.Candidates}
	slices.SortFunc(all, func(a, b ranked) int {
		if order.before(&a, &b) {
			return -1
		}
		return 1
	})
	left := map[int]int64{}
	all = slices.DeleteFunc(all, func(x ranked) bool {
		c := &r.Candidates[x.index]
		t := terms(c)
		if t.Bounded {
			if left[c.Group]+x.bytes > t.Spare {
				stays[x.index] = "whose it is has no more to spare"
				return true
			}
			left[c.Group] += x.bytes
		}
		return false
	})
	for i, why := range stays {
		if why != "" {
			plan.keep(&r.Candidates[i], why)
		}
	}
	k, freed := 0, int64(0)
	for i := range all {
		all[i].rank = int32(i + 1)
		if freed < need {
			freed += all[i].bytes
			k++
		}
	}
	chosen := slices.Clone(all[:k])
	_, dense := p.(perByte)
	switch {
	case r.MaxVictims > 0 && k > r.MaxVictims:
		chosen = naiveFewest(all, need, r.MaxVictims)
	case dense && freed >= need && r.MaxVictims == 0 && k <= among/2:
		chosen = cheapestSet(all[:k:k], all[k:max(k, min(len(all), among))], need)
		for _, x := range all[:k] {
			if !slices.Contains(chosen, x) {
				plan.keep(&r.Candidates[x.index], "spared: others that are worth less together suffice")
			}
		}
	}
	freed = 0
	for _, x := range chosen {
		freed += x.bytes
	}
	for i := len(chosen) - 1; i >= 0; i-- {
		if x := chosen[i]; freed-x.bytes >= need {
			freed -= x.bytes
			plan.keep(&r.Candidates[x.index], "spared: the others suffice without it")
			chosen = slices.Delete(chosen, i, i+1)
		}
	}
	plan.Freed, plan.Shortfall, plan.Victims = freed, max(0, need-freed), []Victim{}
	for _, x := range chosen {
		c := &r.Candidates[x.index]
		v := Victim{Key: c.Key, Index: int(x.index), Bytes: c.Bytes, Cost: c.Cost, Value: x.value,
			unread: max(0, now.Sub(c.LastUsed)), readers: c.Readers, priority: c.Priority, doubled: c.Doubled, asked: c.LastVictim, rank: x.rank, of: int32(len(all))}
		if until := c.guarded(r.For, x.value); until > now {
			v.Guarded = until
		}
		plan.Until = max(plan.Until, v.Guarded)
		plan.ReloadSeconds += c.Cost
		plan.Victims = append(plan.Victims, v)
	}
	return plan
}

// naiveFewest tries for each slot one after the other whether the largest others suffice with it.
func naiveFewest(all []ranked, need int64, limit int) (chosen []ranked) {
	largest := func(n int, without []ranked) []ranked {
		rest := slices.DeleteFunc(slices.Clone(all), func(x ranked) bool { return slices.Contains(without, x) })
		slices.SortStableFunc(rest, func(a, b ranked) int { return cmp.Compare(b.bytes, a.bytes) })
		return rest[:min(n, len(rest))]
	}
	sum := func(of []ranked) (bytes int64) {
		for _, x := range of {
			bytes += x.bytes
		}
		return bytes
	}
	if most := largest(limit, nil); sum(most) < need {
		chosen = most
	} else {
		for slots := limit; slots > 0 && sum(chosen) < need; slots-- {
			for _, x := range all {
				with := append(slices.Clone(chosen), x)
				if !slices.Contains(chosen, x) && sum(with)+sum(largest(slots-1, with)) >= need {
					chosen = with
					break
				}
			}
		}
	}
	slices.SortFunc(chosen, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	return chosen
}

// Whatever is asked for, a plan is what the naive planner makes of it: pins, readers and
// exclusions, groups that go first, weigh more, stay or may lose only so much, a bound on
// victims, force, and what was just loaded. The planner is used again and again.
func TestPlansAreTheNaiveOnes(t *testing.T) {
	var planner Planner
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Int64().Draw(t, "seed")
		random := rand.New(rand.NewSource(seed))
		n := rapid.SampledFrom([]int{0, 1, 3, 10, 40, 120, 700}).Draw(t, "candidates")
		most := rapid.SampledFrom([]int64{3, 50, 1 << 33}).Draw(t, "largest")
		different := rapid.SampledFrom([]int{1, 5, 10000}).Draw(t, "different values")
		w := worth{}
		r := Request{Force: random.Intn(4) == 0, Explain: true}
		var all int64
		groups := 1 + random.Intn(4)
		of := make([]int64, groups)
		for i := range n {
			c := candidate(fmt.Sprint("m", i), 1+random.Int63n(most))
			c.Group, c.Cost, c.LastUsed = random.Intn(groups), random.Float64(), clock.Instant(random.Intn(3))
			switch random.Intn(20) {
			case 0:
				c.Pinned = true
			case 1:
				c.Readers = 1 + random.Intn(3)
			case 2:
				c.Excluded = "no"
			case 3:
				c.LastVictim = true
			case 4:
				c.Priority = random.Intn(5) - 2
			case 5:
				c.Bytes = 0
			case 8:
				c.Doubled = true
			case 6, 7:
				c.Grace = GraceOf(minute.Add(-time.Second), time.Duration(random.Intn(3))*time.Second)
			}
			w[c.Key] = float64(random.Intn(different))
			if random.Intn(50) == 0 {
				w[c.Key] = math.Inf(-1)
			}
			all += c.Bytes
			of[c.Group] += c.Bytes
			r.Candidates = append(r.Candidates, c)
		}
		for g := range rapid.IntRange(0, groups).Draw(t, "groups with terms") {
			var x Terms
			switch random.Intn(4) {
			case 0:
				x.Excluded = "another's"
			case 1:
				x.First, x.Weight = true, 2*random.Float64()
			}
			if random.Intn(3) > 0 {
				x.Bounded, x.Spare = true, random.Int63n(of[g]+2)
			}
			r.Terms = append(r.Terms, x)
		}
		if random.Intn(2) == 0 {
			r.For = &Newcomer{Priority: random.Intn(3) - 1, Worth: float64(random.Intn(different + 1))}
		}
		sizes := []int64{}
		for _, c := range r.Candidates {
			sizes = append(sizes, c.Bytes)
		}
		slices.Sort(sizes)
		var policy Policy = w
		if random.Intn(2) == 0 {
			policy = dense{w}
		}
		for range 5 {
			r.Already = random.Int63n(3)
			r.Need, r.MaxVictims = 1+random.Int63n(all+all/4+1)>>uint(random.Intn(12)), 0
			if 0 < n && n <= 120 && random.Intn(2) == 0 {
				r.MaxVictims = 1 + random.Intn(1+n/2)
				if random.Intn(2) == 0 { // which the largest can just meet, or just not
					r.Need = 0
					for _, bytes := range sizes[n-r.MaxVictims:] {
						r.Need += bytes
					}
					r.Need -= random.Int63n(r.Need/4 + 2)
				}
			}
			compare(t, &planner, policy, r, w)
		}
	})
}

// compare makes a plan in every way there is.
func compare(t *rapid.T, planner *Planner, policy Policy, r Request, w worth) {
	got, want := planner.MakePlan(policy, r, minute), naive(policy, r, minute)
	if math.Abs(got.ReloadSeconds-want.ReloadSeconds) > 1e-9 {
		t.Fatalf("%g seconds, it should be %g", got.ReloadSeconds, want.ReloadSeconds)
	}
	got.ReloadSeconds = want.ReloadSeconds
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("need %d with %d victims at most, terms %+v:\ngot  %+v\nwant %+v", r.Need-r.Already, r.MaxVictims, r.Terms, got, want)
	}
	kept := got.Kept
	r.Explain, r.Worths = false, make([]*Worth, len(r.Candidates))
	for i, c := range r.Candidates {
		r.Worths[i] = &Worth{w[c.Key]}
	}
	again := planner.MakePlan(policy, r, minute)
	if again.Kept != nil {
		t.Fatal("it says what stays, unasked")
	}
	if again.Kept = kept; fmt.Sprint(again) != fmt.Sprint(got) {
		t.Fatalf("unexplained, with worths shown:\ngot  %+v\nwant %+v", again, got)
	}
}

package eviction_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/eviction"
)

// Whatever is asked for, no group loses more than it can spare, and what goes first goes
// before what does not.
func TestGroupsKeepTheirFloors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := eviction.NewLRU()
		terms := []eviction.Terms{
			{Bounded: true, Spare: rapid.Int64Range(0, 300).Draw(t, "red"), First: rapid.Bool().Draw(t, "first")},
			{Bounded: true, Spare: rapid.Int64Range(0, 300).Draw(t, "blue")},
		}
		r := eviction.Request{Need: rapid.Int64Range(1, 2000).Draw(t, "need"), MaxVictims: rapid.IntRange(0, 4).Draw(t, "most"), Terms: terms, Explain: true}
		for i := range rapid.IntRange(0, 20).Draw(t, "objects") {
			c := eviction.Candidate{Object: eviction.Object{Key: fmt.Sprint(i), Bytes: rapid.Int64Range(1, 200).Draw(t, "bytes")},
				Group: rapid.IntRange(0, 2).Draw(t, "group")}
			policy.Loaded(c.Object, 0)
			r.Candidates = append(r.Candidates, c)
		}
		plan := eviction.MakePlan(policy, r, 0)
		lost := make([]int64, 3)
		others := false
		for _, v := range plan.Victims {
			g := r.Candidates[v.Index].Group
			lost[g] += v.Bytes
			first := g == 0 && terms[0].First
			if first && others {
				t.Fatalf("%s goes after others", v.Key)
			}
			others = others || !first
		}
		for g := range terms {
			if lost[g] > terms[g].Spare {
				t.Fatalf("group %d loses %d bytes, can spare %d", g, lost[g], terms[g].Spare)
			}
		}
		if plan.Shortfall > 0 && r.MaxVictims == 0 && len(plan.Victims)+len(plan.Kept) != len(r.Candidates) {
			t.Fatalf("%d go and %d stay of %d", len(plan.Victims), len(plan.Kept), len(r.Candidates))
		}
	})
}

// A weight multiplies what is lost.
func TestWeightsKeep(t *testing.T) {
	policy, err := eviction.New("")
	if err != nil {
		t.Fatal(err)
	}
	var cs []eviction.Candidate
	for _, key := range []string{"light", "heavy"} {
		c := eviction.Candidate{Object: eviction.Object{Key: key, Bytes: 10, Cost: 1}}
		if key == "light" {
			c.Cost, c.Group = 2, 1
		}
		policy.Loaded(c.Object, 0)
		cs = append(cs, c)
	}
	plan := eviction.MakePlan(policy, eviction.Request{Need: 1, Candidates: cs, Terms: []eviction.Terms{1: {Weight: 0.1}}}, 0)
	if len(plan.Victims) != 1 || plan.Victims[0].Key != "light" {
		t.Fatalf("%+v goes", plan.Victims)
	}
}

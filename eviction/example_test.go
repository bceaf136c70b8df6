package eviction_test

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
)

func Example() {
	policy := eviction.NewCost(eviction.DefaultRemembered)
	now := clock.Instant(time.Hour)

	models := []eviction.Candidate{
		{Object: eviction.Object{Key: "sdxl", Bytes: 7 << 30, Cost: 2.5}, LastUsed: now.Add(-42 * time.Second)},
		{Object: eviction.Object{Key: "llama", Bytes: 5 << 30, Cost: 6.0}, LastUsed: now.Add(-time.Second)},
		{Object: eviction.Object{Key: "vae", Bytes: 1 << 30, Cost: 0.4}, LastUsed: now.Add(-time.Minute), Readers: 1},
	}
	for _, m := range models {
		policy.Loaded(m.Object, m.LastUsed)
		policy.Used(m.Key, m.LastUsed)
	}

	plan := eviction.MakePlan(policy, eviction.Request{Need: 6 << 30, Candidates: models, Explain: true}, now)
	for _, v := range plan.Victims {
		fmt.Printf("%s goes: %s\n", v.Key, v.Reason())
		policy.Evicted(v.Key, now) // once it is really gone
	}
	for _, k := range plan.Kept {
		fmt.Printf("%s stays: %s\n", k.Key, k.Reason)
	}
	// Output:
	// sdxl goes: unread for 42 s; reload costs 2.5 s; cheapest of 2
	// vae stays: in use by 1 reader
}

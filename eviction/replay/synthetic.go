package replay

import (
	"fmt"
	"math"
	"math/rand"

	"github.com/isobar-project/isobar/eviction"
)

// Synthetic makes a trace of the shape of the published one, for where that is
// not to be had: bases and LoRAs of real sizes, popularity by Zipf that drifts,
// load seconds spread over orders of magnitude. Its bounds are no proven ones
// but the first loads' seconds, so its scores compare only with each other.
func Synthetic(seed int64, requests int) *Trace {
	random := rand.New(rand.NewSource(seed))
	const bases, loras = 90, 600
	t := &Trace{}
	for i := range bases {
		t.Models = append(t.Models, fmt.Sprintf("base-%d", i))
	}
	for i := range loras {
		t.Models = append(t.Models, fmt.Sprintf("lora-%d", i))
	}
	base := rand.NewZipf(random, 1.3, 2, bases-1)
	lora := rand.NewZipf(random, 1.1, 5, loras-1)
	for i := range requests {
		drift := i / 500 // what is popular moves on
		needs := []int{(int(base.Uint64()) + drift) % bases}
		if random.Intn(4) == 0 {
			needs = append(needs, bases+(int(lora.Uint64())+drift*3)%loras)
		}
		t.Requests = append(t.Requests, needs)
	}
	sizes := []int64{2_130_000_000, 4_270_000_000, 6_940_000_000}
	a := Assignment{Seed: "synthetic", Costs: make(map[string][]eviction.Object)}
	var total int64
	for i, name := range t.Models {
		size := sizes[random.Intn(len(sizes))]
		if i >= bases {
			size = 10_000_000 << random.Intn(5)
		}
		total += size
		a.Costs[Measured] = append(a.Costs[Measured], eviction.Object{Key: name, Bytes: size, Cost: math.Exp(1 + random.NormFloat64())})
		a.Costs[Bandwidth] = append(a.Costs[Bandwidth], eviction.Object{Key: name, Bytes: size, Cost: .05 + float64(size)/3e9})
	}
	t.Assignments = []Assignment{a}
	asked := make(map[int]bool)
	for _, needs := range t.Requests {
		for _, i := range needs {
			asked[i] = true
		}
	}
	for _, cost := range []string{Measured, Bandwidth} {
		first := 0.
		for i := range t.Models {
			if asked[i] {
				first += a.Costs[cost][i].Cost
			}
		}
		for _, f := range []float64{.10, .25, .50} {
			t.Bounds = append(t.Bounds, Bound{Cost: cost, Seed: a.Seed, Fraction: f, Capacity: int64(f * float64(total)), Seconds: first})
		}
	}
	return t
}

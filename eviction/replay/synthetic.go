package replay

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand"

	"github.com/isobar-project/isobar/eviction"
)

// SyntheticName is what Published calls a synthetic trace.
const SyntheticName = "synthetic"

// Published reads the trace of a folder. Where none is named it reads that of usual, or makes
// a synthetic one if that folder has none. from says which it is.
func Published(dir, usual string) (t *Trace, from string, err error) {
	from = dir
	if dir == "" {
		from = usual
	}
	t, err = Read(from)
	if errors.Is(err, fs.ErrNotExist) && dir == "" {
		return Synthetic(1, 20000), SyntheticName, nil
	}
	return t, from, err
}

// Synthetic makes a trace of the shape of the published one, for where that is
// not to be had: bases and LoRAs of real sizes, load seconds spread over orders of
// magnitude, popularity by Zipf that drifts, and users who ask for the same models many
// times in a row, a few requests apart. Its bounds are no proven ones but the
// first loads' seconds, so its scores compare only with each other.
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
	t.Requests = users(random, requests, bases, loras)
	asked := make(map[int]bool)
	for _, needs := range t.Requests {
		for _, i := range needs {
			asked[i] = true
		}
	}
	for _, name := range []string{"0", "a", "b", "c", "d"} {
		t.assign(random, "synthetic-"+name, bases, asked)
	}
	return t
}

// users makes the requests: at any time a few users are at work, each with models of
// their own until they leave.
func users(random *rand.Rand, requests, bases, loras int) (out [][]int) {
	base := rand.NewZipf(random, 1.3, 2, uint64(bases-1))
	lora := rand.NewZipf(random, 1.1, 5, uint64(loras-1))
	const atWork, stays = 5, 8
	users := make([][]int, atWork)
	for i := range requests {
		u := random.Intn(atWork)
		if users[u] == nil || random.Intn(stays) == 0 {
			drift := i / 500 // what is popular moves on
			users[u] = []int{(int(base.Uint64()) + drift) % bases}
			if random.Intn(4) == 0 {
				users[u] = append(users[u], bases+(int(lora.Uint64())+drift*3)%loras)
			}
		}
		out = append(out, users[u])
	}
	return out
}

// assign gives every model a size and costs, and makes the bounds.
func (t *Trace) assign(random *rand.Rand, seed string, bases int, asked map[int]bool) {
	sizes := []int64{2_130_000_000, 4_270_000_000, 6_940_000_000}
	a := Assignment{Seed: seed, Costs: make(map[string][]eviction.Object)}
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
	t.Assignments = append(t.Assignments, a)
	for _, cost := range []string{Measured, Bandwidth} {
		first := 0.
		for i := range t.Models {
			if asked[i] {
				first += a.Costs[cost][i].Cost
			}
		}
		for _, f := range []float64{.10, .25, .50} {
			t.Bounds = append(t.Bounds, Bound{Cost: cost, Seed: seed, Fraction: f, Capacity: int64(f * float64(total)), Seconds: first})
		}
	}
}

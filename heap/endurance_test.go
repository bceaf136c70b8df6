package heap

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// worldSteps is how long a world lives: long enough to fill with blocks of all kinds.
const worldSteps = 2000

// denseConfig has segments for many blocks: the index's bins get several chunks.
var denseConfig = Config{GranularityBytes: 1024, Classes: []int64{16384, 65536}, OwnSegmentBytes: 1 << 18, MaxSegmentBytes: 1 << 18, UnitBytes: 256}

// TestEndurance makes random changes and compares the heap with the oracle after each;
// built with the tag "invariants" it is walked inside each as well. The variable
// HEAP_STEPS says how many, HEAP_SEED from where: `HEAP_STEPS=10000000 go test
// -tags invariants -run Endurance -timeout 0 -v ./heap`.
func TestEndurance(t *testing.T) {
	steps, seed := uint64(10_000), uint64(1)
	for name, into := range map[string]*uint64{"HEAP_STEPS": &steps, "HEAP_SEED": &seed} {
		if s := os.Getenv(name); s != "" {
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			*into = n
		}
	}
	from := time.Now()
	grants, most := 0, 0
	for done := uint64(0); done < steps; {
		cfg, dense := tinyConfig, done/worldSteps%4 == 3
		if dense {
			cfg = denseConfig
		}
		w := newWorld(cfg)
		r := rand.New(rand.NewPCG(seed, done))
		for n := 0; n < worldSteps && done < steps; n++ {
			verb, a, b := r.Uint32N(1000), r.Uint32N(1000), r.Uint32N(100_000)
			if len(w.owner) > 40 {
				verb = []uint32{5, 10}[n%2] // free, give up: the oracle looks at every unit
			}
			if dense { // hundreds of small blocks of one owner, then most of them freed
				a, b = a-a%3, b-b%14+b%3
				if verb%15 > 8 && n%16 != 0 {
					verb = uint32(n / (worldSteps / 2) * 5)
				}
			}
			before := len(w.blocks)
			err := w.step(verb, a, b)
			if err == nil {
				err = w.check()
			}
			if err != nil {
				t.Fatalf("seed %d, world of step %d, its step %d (%d, %d, %d): %v", seed, done-uint64(n), n, verb, a, b, err)
			}
			if len(w.blocks) > before {
				grants++
			}
			most = max(most, len(w.blocks))
			done++
		}
	}
	t.Logf("%d operations, %d of them grants, up to %d live blocks, invariants %v: clean, in %v", steps, grants, most, invariants, time.Since(from).Round(time.Second))
	if grants == 0 {
		t.Error("nothing was granted: the test shows nothing")
	}
}

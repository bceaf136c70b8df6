package places

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
)

// process is a simulated one: work is what it does per look.
type process struct {
	clock   *clock.Manual
	look    Look
	waiting float64 // goroutines that wait, with all places
	alone   float64 // the same with one place
	busy    float64
	runs    float64 // a second
	set     []int
	last    time.Duration
}

func (p *process) places() int { return p.set[len(p.set)-1] }

// figures lets the time since the last look have had the present load.
func (p *process) figures() Look {
	now := time.Duration(p.clock.Now())
	dt := now - p.last
	p.last = now
	waiting, busy := p.waiting, p.busy
	if p.places() == 1 {
		waiting, busy = p.alone, min(busy, 1)
	}
	p.look.Waited += time.Duration(waiting * float64(dt))
	p.look.Used += time.Duration(busy * float64(dt))
	p.look.Runs += uint64(p.runs * dt.Seconds())
	return p.look
}

func open(t *testing.T, all int) (*process, *Places) {
	p := &process{clock: clock.NewManual(0, time.Unix(0, 0)), set: []int{0}}
	places := Open(Config{All: all, Clock: p.clock, Look: p.figures, Set: func(n int) { p.set = append(p.set, n) }})
	t.Cleanup(places.Close)
	return p, places
}

func (p *process) pass(d time.Duration) {
	for end := p.clock.Now().Add(d); p.clock.Now() < end; {
		p.clock.Advance(time.Millisecond)
	}
}

func (p *process) rest()    { p.waiting, p.alone, p.busy, p.runs = 0, 0, 0.001, 500 }
func (p *process) one()     { p.waiting, p.alone, p.busy, p.runs = 0.3, 0.05, 1.1, 60000 }
func (p *process) crowded() { p.waiting, p.alone, p.busy, p.runs = 1.5, 20, 3, 200000 }

func TestOnePlaceAtRest(t *testing.T) {
	p, _ := open(t, 16)
	if p.places() != 16 {
		t.Fatalf("%d places at the start", p.places())
	}
	p.rest()
	p.pass(time.Second)
	if p.places() != 1 {
		t.Fatalf("%d places at rest", p.places())
	}
	looks := 0
	before := p.look
	p.waiting, p.alone = 0, 0
	for range 1000 {
		p.clock.Advance(time.Millisecond)
		if p.look != before {
			before = p.look
			looks++
		}
	}
	if looks < 4 || looks > 6 {
		t.Errorf("%d looks in a second at rest", looks)
	}
}

func TestAllPlacesUnderLoadAndOneForOneClient(t *testing.T) {
	p, _ := open(t, 16)
	p.rest()
	p.pass(time.Second)
	p.crowded()
	p.pass(lookRarely + 2*time.Millisecond)
	if p.places() != 16 {
		t.Fatalf("%d places with %v waiting", p.places(), p.alone)
	}
	p.pass(time.Second)
	if p.places() != 16 {
		t.Fatalf("%d places after a second of load", p.places())
	}
	p.one()
	p.pass(holdMost + 5*time.Millisecond)
	if p.places() != 1 {
		t.Fatalf("%d places for a client alone", p.places())
	}
	changes := len(p.set)
	p.pass(time.Second)
	if len(p.set) != changes {
		t.Errorf("%d changes for a client alone", len(p.set)-changes)
	}
	p.crowded()
	p.pass(2 * time.Millisecond)
	if p.places() != 16 {
		t.Errorf("%d places two looks after others came", p.places())
	}
}

// TestTriesAreRare: a load that looks as if one place might do is tried, but ever more rarely.
func TestTriesAreRare(t *testing.T) {
	p, _ := open(t, 2)
	p.waiting, p.alone, p.busy, p.runs = 1.2, 9, 1.2, 100000
	p.pass(time.Second)
	few := 0
	for _, n := range p.set {
		if n == 1 {
			few++
		}
	}
	if most := int(time.Second/holdMost) + 4; few == 0 || few > most {
		t.Errorf("%d tries in a second, at most %d", few, most)
	}
}

func TestBlockingWorkHasPlacesOfItsOwn(t *testing.T) {
	p, places := open(t, 2)
	p.rest()
	p.pass(time.Second)
	places.Add(2)
	if p.places() != 4 {
		t.Errorf("%d places beside two that block", p.places())
	}
	p.pass(time.Second)
	if p.places() != 4 {
		t.Errorf("%d places a second later", p.places())
	}
	places.Add(-2)
	if p.places() != 2 {
		t.Errorf("%d places after them", p.places())
	}
	p.pass(lookRarely + holdLeast + 2*time.Millisecond)
	if p.places() != 1 {
		t.Errorf("%d places later", p.places())
	}
	places.Add(0)
	if p.places() != 2 {
		t.Errorf("%d places beside a short call", p.places())
	}
	places.Close()
	changes := len(p.set)
	p.pass(time.Second)
	if len(p.set) != changes || p.places() != 2 {
		t.Errorf("%d places after Close, and %d changes", p.places(), len(p.set)-changes)
	}
}

func TestOneProcessorIsLeftAlone(t *testing.T) {
	p, _ := open(t, 1)
	p.rest()
	p.pass(time.Second)
	if len(p.set) != 2 || p.places() != 1 {
		t.Errorf("places were set to %v", p.set[1:])
	}
}

// TestGovernorNeverStarves: whatever came before, a load that crowds one place has all of
// them two looks later, and is given one at most a twentieth of the time.
func TestGovernorNeverStarves(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		p, _ := open(t, 2+r.IntN(30))
		for range 20 {
			switch r.IntN(3) {
			case 0:
				p.rest()
			case 1:
				p.one()
			default:
				p.waiting, p.alone, p.busy, p.runs = 3*r.Float64(), 20*r.Float64(), 4*r.Float64(), 200000*r.Float64()
			}
			p.pass(time.Duration(r.IntN(150)) * time.Millisecond)
		}
		p.crowded()
		p.pass(lookRarely + 2*time.Millisecond)
		starved := 0
		for range 1000 {
			p.pass(time.Millisecond)
			if p.places() == 1 {
				starved++
			}
		}
		if starved > 50 {
			t.Fatalf("seed %d: one place for %d of 1000 ms of load", seed, starved)
		}
	}
}

func TestProcessSeesWaiting(t *testing.T) {
	look := Process()
	before := look()
	done := make(chan struct{})
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 3000 {
				done <- struct{}{}
			}
		})
	}
	go func() { all.Wait(); close(done) }()
	for range done {
	}
	after := look()
	if after.Runs <= before.Runs || after.Waited <= before.Waited || after.Used <= before.Used {
		t.Errorf("after 192,000 hand-overs: %+v, before: %+v", after, before)
	}
	if n := testing.AllocsPerRun(100, func() { look() }); n > 0 {
		t.Errorf("%v allocations a look", n)
	}
}

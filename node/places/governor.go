package places

import "time"

const (
	// lookOften and lookRarely are the times between two looks, with work and without.
	lookOften  = time.Millisecond
	lookRarely = 200 * time.Millisecond
	// One place is too few where so many goroutines wait on average (crowded), or where it is
	// never free and some wait (full, some). One that waits now and then is its price.
	crowded = 2.0
	full    = 0.95
	some    = 0.5
	// enough is how many processors may be in use where one place might do: threads that look
	// for work in vain are counted too, and are no more than half a processor.
	enough = 1.5
	// quiet is how many times a second goroutines begin to run in a process at rest.
	quiet = 5000
	// restAfter is how long it must be quiet before looks are rare.
	restAfter = 100 * time.Millisecond
	// holdLeast and holdMost bound how long all places are kept before one is tried. Between
	// them the time doubles with each try that was a mistake, seen within mistake; it is the
	// least again after one that was not, and when much less runs, or waits, than before the
	// last mistake.
	holdLeast = 3 * time.Millisecond
	holdMost  = 30 * time.Millisecond
	mistake   = 10 * time.Millisecond
	less      = 0.75
	lessWaits = 0.5
	// smooth is the weight of the newest look in the means of runs and of waiting.
	smooth = 0.3
)

// Look is what is known of the process at one time. All but At only grow.
type Look struct {
	At     time.Duration
	Waited time.Duration // of all goroutines together, ready but without a place
	Runs   uint64        // times that a goroutine began to run
	Used   time.Duration // time on processors, of all threads together
}

// governor decides, look by look, whether one place is enough.
type governor struct {
	last  Look
	begun bool
	few   bool // one place is enough

	quietFor time.Duration
	since    time.Duration // since the places were set
	hold     time.Duration
	runs     float64 // a second, smoothed
	now      load    // smoothed; with all places only
	mistaken load    // before the last try that was a mistake
}

// load is what tells whether a process does less than before.
type load struct{ runs, waiting float64 }

// eased tells whether it is much less than another.
func (l load) eased(than load) bool {
	return l.runs < less*than.runs || l.waiting < lessWaits*than.waiting
}

// step takes one look and says when to look again.
func (g *governor) step(l Look) (again time.Duration) {
	dt := l.At - g.last.At
	waiting := float64(l.Waited-g.last.Waited) / float64(dt)
	busy := float64(l.Used-g.last.Used) / float64(dt)
	runs := float64(l.Runs-g.last.Runs) / dt.Seconds()
	g.last = l
	if !g.begun || dt <= 0 {
		g.begun, g.hold = true, max(g.hold, holdLeast)
		return lookOften
	}
	g.since += dt
	g.runs += smooth * (runs - g.runs)
	if g.quietFor += dt; g.runs >= quiet {
		g.quietFor = 0
	}
	switch {
	case !g.few:
		g.now.runs += smooth * (runs - g.now.runs)
		g.now.waiting += smooth * (waiting - g.now.waiting)
		if g.now.eased(g.mistaken) {
			g.hold, g.mistaken = holdLeast, load{}
		}
		if g.since >= g.hold && busy < enough {
			g.few, g.since = true, 0
		}
	case waiting >= crowded || busy >= full && waiting >= some:
		if g.since <= mistake {
			g.hold, g.mistaken = min(2*g.hold, holdMost), g.now
		} else {
			g.hold, g.mistaken = holdLeast, load{}
		}
		g.few, g.since = false, 0
	}
	if g.few && g.quietFor >= restAfter {
		return lookRarely
	}
	return lookOften
}

// more ends what one place was enough for, before a look says so.
func (g *governor) more() { g.few, g.since = false, 0 }

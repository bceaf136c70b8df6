package actors

import (
	"fmt"
	"sync"
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/history"
)

// analyticsActor owns the history. It looks once a second at where devices leave their
// figures anyway, so that no command waits for it or sends it anything. The history lies in a
// memory that outlives the process, but has no part in the ledger: one that cannot be read
// begins anew, and so it does after a defect.
type analyticsActor struct {
	inbox
	house *House
	past  *history.History
	mem   []byte
	what  map[*deviceActor]*foresight
}

// openAnalytics goes on with the history of a predecessor, or begins one.
func (h *House) openAnalytics() error {
	a := &analyticsActor{house: h, what: map[*deviceActor]*foresight{}}
	h.analytics = a
	mem, inherited, err := h.cfg.Memory("history")
	if err != nil {
		return fmt.Errorf("history: %w", err)
	}
	a.mem = mem
	if inherited {
		if a.past, err = history.Open(mem, a.config()); err == nil {
			return nil
		}
		h.log.Warn("the history of an earlier node is lost, and begins anew", "error", err)
	}
	a.format()
	return nil
}

func (a *analyticsActor) config() history.Config {
	return history.Config{Devices: len(a.house.cfg.Devices) + 1}
}

// format begins the history anew, in memory that ends with the process where it must be.
func (a *analyticsActor) format() {
	// The moment is another than that of any predecessor.
	past, err := history.Format(a.mem, a.config(), uint64(a.house.cfg.Clock.Now()))
	if err != nil {
		a.house.log.Warn("the history ends with this node", "error", err)
		past = history.New(a.config())
	}
	if a.past != nil {
		past.Continue(a.past)
	}
	a.past = past
}

// Restart implements seam.Restarter.
func (a *analyticsActor) Restart() {
	a.what = map[*deviceActor]*foresight{}
	a.format()
}

// wholeNode is the series of what concerns no one device.
const wholeNode = ""

// durations gathers what took time on a device, and who asked for models there, until
// analytics takes it.
type durations struct {
	mu                 sync.Mutex
	grants, queued, ld history.Histogram
	uses               []history.Use
}

// maxUses is how many uses wait for analytics; what comes beyond that in one second is not
// remembered.
const maxUses = 8192

func (d *durations) grant(took, queued time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grants.Observe(took)
	if queued > 0 {
		d.queued.Observe(queued)
	}
}

func (d *durations) load(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ld.Observe(took)
}

// use notes that somebody asked for a model.
func (d *durations) use(u *catalog.Use) {
	kind := map[catalog.UseKind]history.UseKind{catalog.UseHit: history.Hit, catalog.UseLoad: history.Miss,
		catalog.UseTouch: history.Touch, catalog.UseGone: history.Gone}[u.Kind]
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.uses) < maxUses {
		d.uses = append(d.uses, history.Use{At: u.At, Model: history.ModelOf(u.Key), Bytes: u.Bytes, Cost: u.Cost, Kind: kind, Took: u.Took})
	}
}

// drained is what durations gives to analytics.
type drained struct {
	grants, queued, loads history.Histogram
	uses                  []history.Use
}

// drain gives what has been gathered and begins anew.
func (d *durations) drain() drained {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := drained{d.grants, d.queued, d.ld, d.uses}
	d.grants, d.queued, d.ld, d.uses = history.Histogram{}, history.Histogram{}, history.Histogram{}, nil
	return g
}

// drain gives a device's newest figures and the most it used since the last time.
func (s *gaugeSlot) drain() (gauge, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	peak := s.peak
	s.peak = s.newest.figures.Used
	return s.newest, peak
}

// begin looks once a second from now on, and no oftener than it gets round to.
func (a *analyticsActor) begin() {
	a.house.cfg.Clock.AfterFunc(history.Fine, func() {
		a.tell(seam.SystemLane, func() {
			a.begin() // first: a defect in look costs one look
			a.look()
		})
	})
}

// look takes what every device has left since the last time.
func (a *analyticsActor) look() {
	now := a.house.cfg.Clock.Now()
	for _, d := range a.house.devices {
		g, peak := d.gauges.drain()
		if g.device == nil {
			continue // it has not begun
		}
		a.past.Add(d.id, history.Point{At: now, Used: g.figures.Used, Available: g.figures.Available, Models: g.figures.Models, Peak: peak,
			Level: uint8(levelOf(d.beat.Load().PressureLevel))},
			history.Counters{Grants: g.stats.Grants, Releases: g.stats.Releases, Refusals: g.stats.Refusals, Evictions: g.stats.Evictions})
		x := d.took.drain()
		a.past.Took(d.id, history.Grant, &x.grants, now)
		a.past.Took(d.id, history.Queue, &x.queued, now)
		a.past.Took(d.id, history.Load, &x.loads, now)
		a.past.Asked(d.id, x.uses)
	}
	p := a.house.pool
	a.past.Add(wholeNode, history.Point{At: now}, history.Counters{Hits: p.hits.Load(), Loads: p.loads.Load()})
}

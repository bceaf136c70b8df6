package soak

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/schemas"
)

// overtakenTime is how long one who waits may go on waiting after somebody behind was granted:
// both were let through by then, and only the making of memory takes its time.
const overtakenTime = 10 * time.Second

// watcher follows the events: sequences without gaps, and the order of the queues.
type watcher struct {
	s      *soak
	events *client.Events
	client *client.Client
	boot   string
	queues map[string][]*waiting // by device
}

// waiting is a request in line.
type waiting struct {
	request   string
	overtaken time.Time
}

func (s *soak) newWatcher(ctx context.Context) (*watcher, error) {
	// A connection of its own: a client that is busy with commands reads late.
	c, err := client.Connect(client.Options{URL: s.url(), Name: "bus-test events"})
	if err != nil {
		return nil, err
	}
	e, err := c.Events(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &watcher{s: s, events: e, client: c, queues: map[string][]*waiting{}}, nil
}

func (s *soak) url() string {
	if s.node != nil {
		return s.node.URL
	}
	return s.o.NATSURL
}

func (w *watcher) close() {
	w.events.Close()
	w.client.Close()
}

func (w *watcher) run(ctx context.Context) {
	for {
		e, err := w.events.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.s.truth.violate("events", "%v", err)
			return
		}
		w.s.truth.count("event "+string(e.Event.Event), "")
		if e.Missed.To > 0 {
			w.s.truth.violate("events", "%s: sequences %d to %d are missing", e.Subject, e.Missed.From, e.Missed.To)
		}
		if e.Event.Event == schemas.EventGap {
			w.s.truth.note("the node told of a gap on %s: %s", e.Subject, e.Raw)
		}
		if e.BootID != w.boot {
			// Who waited with the node before waits for nothing.
			w.boot, w.queues = e.BootID, map[string][]*waiting{}
		}
		if len(e.Raw) > 0 && e.Subject == schemas.AllocationSubject(e.Node, tail(e.Subject)) {
			var batch schemas.AllocationBatch
			if err := e.Decode(&batch); err != nil {
				w.s.truth.violate("events", "%s: %v", e.Subject, err)
				continue
			}
			for _, i := range batch.Items {
				w.item(i)
			}
		}
	}
}

// tail is the last token of a subject.
func tail(subject string) string {
	for i := len(subject) - 1; i >= 0; i-- {
		if subject[i] == '.' {
			return subject[i+1:]
		}
	}
	return subject
}

// item follows the line of a device: queued puts in at the position told, anything else takes
// out. Who is granted must have had nobody before him who goes on waiting.
func (w *watcher) item(i schemas.AllocationItem) {
	now := time.Now()
	q := w.queues[i.DeviceID]
	for _, x := range q {
		if !x.overtaken.IsZero() && now.Sub(x.overtaken) > overtakenTime && !w.s.truth.disturbed(x.overtaken) {
			w.s.truth.violate("queue", "%s on %s still waits %s after one behind it was granted", x.request, i.DeviceID, overtakenTime)
			x.overtaken = now.Add(time.Hour)
		}
	}
	if i.RequestID == "" {
		return
	}
	if i.Event == schemas.EventQueued {
		at := min(max(0, i.Position-1), len(q))
		x := &waiting{request: i.RequestID}
		w.queues[i.DeviceID] = append(q[:at:at], append([]*waiting{x}, q[at:]...)...)
		return
	}
	for k, x := range q {
		if x.request != i.RequestID {
			continue
		}
		if i.Event == schemas.EventAllocated {
			for _, before := range q[:k] {
				if before.overtaken.IsZero() {
					before.overtaken = now
				}
			}
		}
		w.queues[i.DeviceID] = append(q[:k:k], q[k+1:]...)
		return
	}
}

// limitTrack remembers which limits were in force, for the observer. A change is in force at
// some moment while it is being made: until it is done the higher of the two counts.
type limitTrack struct {
	mu      sync.Mutex
	highest map[string]int64 // since the last look
	now     map[string]int64
}

// raise notes a limit that may be in force from now on.
func (l *limitTrack) raise(device string, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.highest == nil {
		l.highest, l.now = map[string]int64{}, map[string]int64{}
	}
	l.now[device] = max(l.now[device], bytes)
	l.highest[device] = max(l.highest[device], bytes)
}

// settle notes the one that is in force.
func (l *limitTrack) settle(device string, bytes int64) {
	l.raise(device, bytes)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now[device] = bytes
}

// take returns the highest limit since the last look, which begins anew.
func (l *limitTrack) take(device string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.highest[device]
	if l.highest != nil {
		l.highest[device] = l.now[device]
	}
	return h
}

// observe looks at the figures all the time.
func (s *soak) observe(ctx context.Context) {
	for _, d := range s.devices {
		s.truth.limits.settle(d, s.size[d])
	}
	last := map[string]int64{} // with what was pooled
	for pause(ctx, 30*time.Millisecond) {
		begun := time.Now()
		var r schemas.GetUsageReply
		err := s.tenants[0].bus.Call(ctx, schemas.ActionGetUsage, nil, &r)
		if ctx.Err() != nil {
			return
		}
		s.truth.judge(begun, "get_usage", err)
		if err != nil {
			continue
		}
		for _, d := range r.Devices {
			m := d.MemoryInfo
			// Others' use is not ours to bound.
			own := m.UsedMemory - m.ForeignMemory
			// What a floor promises counts as used, whatever there is.
			bound := max(last[m.DeviceID], s.truth.limits.take(m.DeviceID), m.TotalMemory) + s.truth.floors.take(m.DeviceID)
			if own > bound {
				s.truth.violate("limit", "%s: %d bytes used of ours, where no limit since was above %d", m.DeviceID, own, bound)
			}
			// What lies idle inside an owner's segments is granted to it whatever the limit is:
			// nobody else could have it.
			last[m.DeviceID] = own + m.PooledMemory
			s.identity(d)
		}
	}
}

// identity checks the sums of one device's figures (design: Bytes).
func (s *soak) identity(d schemas.DeviceUsage) {
	m := d.MemoryInfo
	granted := m.UsedMemory - m.ReservedMemory - m.RevokingMemory - m.ZombieMemory - m.ForeignMemory
	if granted < 0 || m.PooledMemory < 0 || m.RevokingMemory < 0 || m.ZombieMemory < 0 {
		s.truth.violate("figures", "%s: a negative part: %+v", m.DeviceID, m)
	}
	if free := m.TotalMemory - m.UsedMemory - m.PooledMemory; m.FreeMemory != max(0, free) && m.FreeMemory != free {
		s.truth.violate("figures", "%s: free is %d, and limit − used − pooled is %d", m.DeviceID, m.FreeMemory, free)
	}
	var classes, tenants int64
	for _, x := range d.ByClass {
		classes += x.Bytes
	}
	for _, x := range d.ByTenant {
		tenants += x.Bytes
	}
	// What is being made for somebody is used, and nobody's grant yet.
	if own := m.UsedMemory - m.ForeignMemory; classes != tenants || classes > own {
		s.truth.violate("figures", "%s: %d bytes by class, %d by tenant, %d used without others", m.DeviceID, classes, tenants, own)
	}
}

// limits moves the limits up and down, as an operator.
func (s *soak) limits(ctx context.Context, r *rand.Rand, _ *tenant) {
	t := s.tenants[0]
	for pause(ctx, time.Duration(r.Int64N(int64(3*time.Second)))) {
		device := s.devices[r.IntN(len(s.devices))]
		s.setLimit(t, device, s.size[device]*int64(55+r.IntN(46))/100/(2*mib)*(2*mib))
	}
}

func (s *soak) setLimit(t *tenant, device string, bytes int64) {
	s.truth.limits.raise(device, bytes)
	in := &schemas.SetLimitsRequest{DeviceID: device, LimitBytes: &bytes}
	if s.surely(t, schemas.ActionSetLimits, in, nil, "set_limits", uuid.NewString()) == nil {
		s.truth.limits.settle(device, bytes)
	}
}

func (s *soak) restoreLimits(context.Context) {
	for _, d := range s.devices {
		s.setLimit(s.tenants[0], d, s.size[d])
	}
}

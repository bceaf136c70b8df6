package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
	"github.com/isobar-project/isobar/schemas"
)

// The node of pressureLine: devices of 1 GiB, of which a crossing takes three quarters,
// above the threshold of moderate; and clients that load the node meanwhile.
const (
	crossingDevices = 64
	crossingClients = 16
	crossingBytes   = 768 * mib
)

// pressureLine is how soon a third party knows that a level rose: from the publish of the
// allocate that crosses a threshold to the receipt of the event that names it, while clients
// load the node. The raw echo that it is compared with is taken in the same slices, without
// the load. The dwell is shortened, so that devices are soon low again.
type pressureLine struct {
	w     *world
	e     *echo
	run   string
	load  *clients
	cross *nats.Conn
	n     int

	mu     sync.Mutex
	heard  map[string]chan time.Time // by request_id
	low    chan string               // devices that are low
	echoes measure.Durations
	paced  underLoad // the clients give commands at a pace
	full   underLoad // they give the next as soon as the last is answered
}

// underLoad is what was measured under one kind of load.
type underLoad struct {
	events, replies measure.Durations
	pairs           int
	took            time.Duration
}

// crossingPace is the time between two pairs of commands of one client: 16 clients are
// 3,200 commands a second. Without a pace they take all that the machine has, and what is
// measured is the queue for a processor; that figure is given beside.
const crossingPace = 10 * time.Millisecond

func (l *pressureLine) open(ctx context.Context, w *world) error {
	l.w, l.run = w, uuid.NewString()[:13]
	l.heard, l.low = map[string]chan time.Time{}, make(chan string, 4*crossingDevices)
	var devices []string
	for i := range crossingDevices {
		devices = append(devices, fmt.Sprintf("sim:gpu-%d=1GiB", i))
	}
	n, err := w.node(ctx, "sims", embedded.Spec{Settings: map[string][]string{"devices": devices, "pressure_dwell": {"200ms"}, "pressure_dwell_critical": {"200ms"}}})
	if err != nil {
		return err
	}
	if l.e, err = newEcho(w, n.URL); err != nil {
		return err
	}
	third, err := w.dial(n.URL)
	if err != nil {
		return err
	}
	if _, err := third.Subscribe(schemas.PressureSubject(n.Node, "*"), func(m *nats.Msg) { l.receive(time.Now(), m.Data) }); err != nil {
		return err
	}
	if err := third.Flush(); err != nil {
		return err
	}
	if l.cross, err = w.dial(n.URL); err != nil {
		return err
	}
	for i := range crossingDevices {
		l.low <- fmt.Sprintf("gpu-%d", i)
	}
	l.load, err = newClients(w, n.URL, crossingClients)
	return err
}

// receive is the third party.
func (l *pressureLine) receive(at time.Time, text []byte) {
	var e struct {
		Event schemas.EventKind `json:"event"`
		Data  schemas.Pressure  `json:"data"`
	}
	if json.Unmarshal(text, &e) != nil || e.Event != schemas.EventPressureChanged {
		return
	}
	if e.Data.PressureLevel == schemas.PressureLow {
		l.low <- e.Data.DeviceID
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.heard[e.Data.TriggerRequestID]; c != nil {
		c <- at
		delete(l.heard, e.Data.TriggerRequestID)
	}
}

func (l *pressureLine) slice(ctx context.Context, _ int) error {
	took, _, err := measure.Run(1, l.w.count(400, 20), l.e.ask)
	if err != nil {
		return err
	}
	l.echoes = append(l.echoes, took...)
	if err := l.crossings(ctx, l.w.count(55, 4), &l.paced, crossingPace); err != nil {
		return err
	}
	return l.crossings(ctx, l.w.count(20, 2), &l.full, 0)
}

// crossings raises levels while the clients load the node at a pace, 0: without pause.
func (l *pressureLine) crossings(ctx context.Context, n int, into *underLoad, pace time.Duration) error {
	l.load.begin(pace)
	begun := time.Now()
	for range n {
		if err := l.crossing(ctx, into); err != nil {
			_, _ = l.load.stop()
			return err
		}
	}
	into.took += time.Since(begun)
	pairs, err := l.load.stop()
	into.pairs += pairs
	return err
}

// crossing raises one device's level, and lets it fall.
func (l *pressureLine) crossing(ctx context.Context, into *underLoad) error {
	limit, stop := context.WithTimeout(ctx, requestTimeout)
	defer stop()
	var device string
	select {
	case device = <-l.low:
	case <-limit.Done():
		return fmt.Errorf("no device's level fell again: %w", context.Cause(limit))
	}
	l.n++
	id := l.run + "-" + strconv.Itoa(l.n)
	heard := make(chan time.Time, 1)
	l.mu.Lock()
	l.heard[id] = heard
	l.mu.Unlock()
	payload := fmt.Appendf(nil, `{"request_id":%q,"data":{"device_id":%q,"size_bytes":%d}}`, id, device, int64(crossingBytes))
	at := time.Now()
	answer, err := ask(l.cross, "memory.allocate", payload)
	if err != nil {
		return err
	}
	into.replies = append(into.replies, time.Since(at))
	grant, err := allocationID(answer)
	if err != nil {
		return err
	}
	select {
	case t := <-heard:
		into.events = append(into.events, t.Sub(at))
	case <-limit.Done():
		return fmt.Errorf("no pressure event for %s on %s: %w", id, device, context.Cause(limit))
	}
	_, err = ask(l.cross, "memory.deallocate", fmt.Appendf(nil, `{"data":{"allocation_id":%q}}`, grant))
	return err
}

func (l *pressureLine) report(r *Report) {
	echo := float64(l.echoes.At(0.99))
	r.Raw["pressure_echo_unloaded"] = l.echoes.Summary(0)
	for name, u := range map[string]*underLoad{"": &l.paced, "_saturated": &l.full} {
		r.Raw["pressure_event"+name] = u.events.Summary(0)
		r.Raw["pressure_crossing_reply"+name] = u.replies.Summary(0)
		r.Raw["pressure_load_commands_per_second"+name] = round(2 * float64(u.pairs) / u.took.Seconds())
	}
	r.Raw["pressure_event_p99_over_echo_p99_saturated"] = round(float64(l.full.events.At(0.99)) / echo)
	r.set(keyPressure, float64(l.paced.events.At(0.99))/echo)
}

func (l *pressureLine) close() {
	if l.load != nil {
		_, _ = l.load.stop()
	}
}

// clients allocate and deallocate in closed loops, on connections of their own, while they
// are let.
type clients struct {
	conns []*nats.Conn
	quit  chan struct{}
	wg    sync.WaitGroup
	mu    sync.Mutex
	pairs int
	err   error
}

func newClients(w *world, url string, n int) (*clients, error) {
	c := &clients{}
	for range n {
		nc, err := w.dial(url)
		if err != nil {
			return nil, err
		}
		c.conns = append(c.conns, nc)
	}
	return c, nil
}

// begin lets them, each a pair every so often; 0: without pause.
func (c *clients) begin(pace time.Duration) {
	quit := make(chan struct{})
	c.quit = quit
	for i, nc := range c.conns {
		c.wg.Go(func() {
			var turn <-chan time.Time
			if pace > 0 {
				// The clients know nothing of each other: their turns are spread over the pace.
				first := time.NewTimer(pace * time.Duration(i) / time.Duration(len(c.conns)))
				defer first.Stop()
				select {
				case <-quit:
					return
				case <-first.C:
				}
				tick := time.NewTicker(pace)
				defer tick.Stop()
				turn = tick.C
			} else {
				always := make(chan time.Time)
				close(always)
				turn = always
			}
			for k := i; ; k++ {
				select {
				case <-quit:
					return
				default:
				}
				select {
				case <-quit:
					return
				case <-turn:
				}
				err := loadPair(nc, k%crossingDevices)
				c.mu.Lock()
				c.pairs++
				if err != nil && c.err == nil {
					c.err = err
				}
				c.mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
}

func loadPair(nc *nats.Conn, device int) error {
	answer, err := ask(nc, "memory.allocate", fmt.Appendf(nil, `{"data":{"device_id":"gpu-%d","size_bytes":%d}}`, device, 2*mib))
	if err != nil {
		return err
	}
	id, err := allocationID(answer)
	if err != nil {
		return err
	}
	_, err = ask(nc, "memory.deallocate", fmt.Appendf(nil, `{"data":{"allocation_id":%q}}`, id))
	return err
}

// stop ends them and tells how many pairs they did since begin.
func (c *clients) stop() (int, error) {
	if c.quit == nil {
		return 0, nil
	}
	close(c.quit)
	c.quit = nil
	c.wg.Wait()
	n := c.pairs
	c.pairs = 0
	return n, c.err
}

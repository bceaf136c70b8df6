package bench

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

func round(f float64) float64 { return math.Round(f*1e4) / 1e4 }

// A node remembers a bounded number of outcomes for ten minutes (setting max_answers, 200,000),
// and is busy beyond: the lines with named commands stay below that together.

// pairLine allocates and deallocates 1 MiB from the warm pool, by one owner or by two in
// turn; then segments change hands, and clearing shows.
type pairLine struct {
	key    string
	named  bool
	owners int

	w         *world
	nc        *nats.Conn
	run       string
	next      atomic.Uint64
	turn      atomic.Uint64
	size      int64
	one, many series // of pairs
	grants    measure.Durations
	p50s      []float64
	grants64  measure.Durations
	mu        sync.Mutex
	taking    *measure.Durations
}

func (l *pairLine) open(_ context.Context, w *world) (err error) {
	l.w, l.run, l.size = w, uuid.NewString()[:13], mib
	l.owners = max(1, l.owners)
	l.nc, err = w.dial(w.url)
	return err
}

// head begins a request: with a name of its own, if the line has names.
func (l *pairLine) head(b []byte) []byte {
	if !l.named {
		return append(b, `{"data":{`...)
	}
	b = append(append(b, `{"request_id":"`...), l.run...)
	b = strconv.AppendUint(append(b, '-'), l.next.Add(1), 36)
	return append(b, `","data":{`...)
}

// pair allocates and deallocates; the time of the first half alone goes to taking.
func (l *pairLine) pair(int) error {
	prefix := ""
	if l.owners > 1 && l.turn.Add(1)%2 == 0 {
		prefix = otherPrefix
	}
	b := l.head(make([]byte, 0, 160))
	b = append(append(append(b, `"device_id":"`...), l.w.device...), `","size_bytes":`...)
	b = append(strconv.AppendInt(b, l.size, 10), `,"purpose":"kv-cache"}}`...)
	at := time.Now()
	answer, err := ask(l.nc, prefix+"memory.allocate", b)
	if err != nil {
		return err
	}
	took := time.Since(at)
	id, err := allocationID(answer)
	if err != nil {
		return err
	}
	if l.taking != nil {
		l.mu.Lock()
		*l.taking = append(*l.taking, took)
		l.mu.Unlock()
	}
	b = append(append(append(l.head(b[:0]), `"allocation_id":"`...), id...), `"}}`...)
	_, err = ask(l.nc, prefix+"memory.deallocate", b)
	return err
}

var idField = []byte(`"allocation_id":"`)

// allocationID finds the id in an answer to allocate; a queued one has none.
func allocationID(answer []byte) (string, error) {
	_, rest, ok := bytes.Cut(answer, idField)
	id, _, ok2 := bytes.Cut(rest, []byte{'"'})
	if !ok || !ok2 || len(id) == 0 {
		return "", fmt.Errorf("no grant: %s", answer[:min(len(answer), 500)])
	}
	return string(id), nil
}

func (l *pairLine) slice(context.Context, int) error {
	var grants measure.Durations
	l.taking = &grants
	one, many := 400, 1600
	if l.owners > 1 {
		one, many = 200, 800
	}
	n := l.w.count(one, 20)
	took, wall, err := measure.Run(1, n, l.pair)
	if err != nil {
		return err
	}
	l.one.add(took, wall, 2*n)
	l.grants = append(l.grants, grants...)
	l.p50s = append(l.p50s, float64(grants.At(0.5)))
	l.taking = &l.grants64
	n = l.w.count(many, 64)
	took, wall, err = measure.Run(64, n, l.pair)
	if err != nil {
		return err
	}
	l.many.add(took, wall, 2*n)
	l.taking = nil
	return nil
}

func (l *pairLine) report(r *Report) {
	grants := l.grants.Summary(0)
	grants.PerSecond = 2 * float64(len(l.one.all)) / l.one.wall.Seconds()
	grants64 := l.grants64.Summary(0)
	grants64.PerSecond = 2 * float64(len(l.many.all)) / l.many.wall.Seconds()
	r.Raw[l.key+"_1"], r.Raw[l.key+"_64"] = grants, grants64
	r.Raw[l.key+"_pair_1"] = l.one.all.Summary(0)
	if l.w.echo == nil {
		return
	}
	p50, rate := over(l.p50s, l.w.echo.one.p50s), over(l.many.rates, l.w.echo.many.rates)
	if l.key == "allocate" {
		r.set(keyAllocateP50, p50)
		r.set(keyAllocateRate, rate)
	} else {
		r.Raw[l.key+"_p50_over_echo"], r.Raw[l.key+"_throughput_over_echo"] = round(p50), round(rate)
	}
	r.Raw[l.key+"_p50_over_echo_pooled"] = round(float64(l.grants.At(0.5)) / float64(l.w.echo.one.all.At(0.5)))
	if l.owners > 1 {
		if l.w.oneOwner != nil {
			r.set(keyTwoOwners, over(l.p50s, l.w.oneOwner.p50s))
		} else {
			r.absent(keyTwoOwners, "the line allocate, which it is compared with, was left out")
		}
	}
}

func (l *pairLine) close() {}

// formatLine is the pair by the typed client, which decodes all of every answer, in JSON and
// in MessagePack.
type formatLine struct {
	w       *world
	clients [2]*client.Client
	grants  [2]series
	rates   [2]series
}

func (l *formatLine) open(_ context.Context, w *world) (err error) {
	l.w = w
	for i, f := range []codec.Format{codec.JSON, codec.MsgPack} {
		if l.clients[i], err = w.client(w.url, client.Options{Format: f}); err != nil {
			return err
		}
	}
	return nil
}

func (l *formatLine) slice(ctx context.Context, at int) error {
	for k := range l.clients {
		i := (k + at) % 2
		c := l.clients[i]
		var mu sync.Mutex
		var grants measure.Durations
		pair := func(int) error {
			var got schemas.AllocateReply
			begun := time.Now()
			if err := c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: l.w.device, SizeBytes: mib, Purpose: "kv-cache"}, &got); err != nil {
				return err
			}
			took := time.Since(begun)
			mu.Lock()
			grants = append(grants, took)
			mu.Unlock()
			return c.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: got.AllocationID}, nil)
		}
		n := l.w.count(100, 10)
		_, wall, err := measure.Run(1, n, pair)
		if err != nil {
			return err
		}
		l.grants[i].add(grants, wall, 2*n)
		n = l.w.count(400, 64)
		took, wall, err := measure.Run(64, n, pair)
		if err != nil {
			return err
		}
		l.rates[i].add(took, wall, 2*n)
	}
	return nil
}

func (l *formatLine) report(r *Report) {
	for i, name := range []string{"typed_json", "typed_msgpack"} {
		r.Raw[name+"_allocate_1"] = l.grants[i].all.Summary(0)
		s := l.rates[i].all.Summary(0)
		s.PerSecond = 2 * float64(len(l.rates[i].all)) / l.rates[i].wall.Seconds()
		r.Raw[name+"_pair_64"] = s
	}
	r.set(keyFormats, over(l.grants[1].p50s, l.grants[0].p50s))
	r.Raw["msgpack_throughput_over_json"] = round(over(l.rates[1].rates, l.rates[0].rates))
}

func (l *formatLine) close() {}

package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
	"github.com/isobar-project/isobar/schemas"
)

// refillGrants is how many MiB are granted in a slice: many times what the pool holds, so
// that segments are made, and put into the vault, as fast as they are asked for.
const refillGrants = 256

// refillLine is what the vault costs where segments must be made: the time to grant far more
// than the pool holds, on a node with a vault and on one without, in turn.
type refillLine struct {
	w     *world
	sides [2]refillSide // with a vault, without
}

type refillSide struct {
	nc   *nats.Conn
	c    *client.Client
	took measure.Durations
}

func (l *refillLine) open(ctx context.Context, w *world) error {
	l.w = w
	for i, vault := range []string{"on", "off"} {
		n, err := w.node(ctx, "vault-"+vault, smallPool(vault))
		if err != nil {
			return err
		}
		s := &l.sides[i]
		if s.nc, err = w.dial(n.URL); err != nil {
			return err
		}
		if s.c, err = w.client(n.URL, client.Options{}); err != nil {
			return err
		}
	}
	return nil
}

func (l *refillLine) slice(ctx context.Context, at int) error {
	for range l.w.count(2, 1) {
		for k := range l.sides {
			if err := l.sides[(k+at)%2].once(ctx, l.w.count(refillGrants, 48)); err != nil {
				return err
			}
		}
	}
	return nil
}

// once grants so many segments of 1 MiB, 16 at a time, then gives them back and waits until
// the node is at rest.
func (s *refillSide) once(ctx context.Context, n int) error {
	var mu sync.Mutex
	var held []string
	_, wall, err := measure.Run(16, n, func(int) error {
		answer, err := ask(s.nc, "memory.allocate", []byte(`{"data":{"size_bytes":1048576}}`))
		if err != nil {
			return err
		}
		id, err := allocationID(answer)
		mu.Lock()
		held = append(held, id)
		mu.Unlock()
		return err
	})
	if err != nil {
		return err
	}
	s.took = append(s.took, wall)
	for _, id := range held {
		if _, err := ask(s.nc, "memory.deallocate", fmt.Appendf(nil, `{"data":{"allocation_id":%q}}`, id)); err != nil {
			return err
		}
	}
	return rest(ctx, s.c)
}

// rest waits until nothing but the pool is held, and that within its bound.
func rest(ctx context.Context, c *client.Client) error {
	limit, stop := context.WithTimeout(ctx, requestTimeout)
	defer stop()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		var r schemas.GetUsageReply
		if err := c.Call(limit, schemas.ActionGetUsage, &schemas.GetUsageRequest{}, &r); err != nil {
			tick.Stop()
			return err
		}
		if m := r.Devices[0].MemoryInfo; m.PooledMemory <= 32*mib && m.UsedMemory == m.ForeignMemory && m.PooledMemory >= 16*mib {
			tick.Stop()
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			tick.Stop()
			return fmt.Errorf("the pool did not come to rest: %+v", r.Devices[0].MemoryInfo)
		}
	}
}

func (l *refillLine) report(r *Report) {
	on, off := l.sides[0].took, l.sides[1].took
	r.Raw["refill_with_vault"], r.Raw["refill_vault_off"] = on.Summary(0), off.Summary(0)
	var a, b []float64
	for i := range on {
		a, b = append(a, float64(on[i])), append(b, float64(off[i]))
	}
	r.set(keyRefill, over(a, b))
}

func (l *refillLine) close() {}

package bench

import (
	"context"
	"os"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// coldLine is what a grant of 64 MiB costs that no pool has: from asking until every page
// was written to by another process. The node's pool is smaller than the grant.
type coldLine struct {
	w                           *world
	c                           *client.Client
	d                           *data.Client
	whole, grants, maps, touchs measure.Durations
}

func (l *coldLine) open(ctx context.Context, w *world) error {
	l.w = w
	n, err := w.node(ctx, "vault-on", smallPool("on"))
	if err != nil {
		return err
	}
	if l.c, err = w.client(n.URL, client.Options{}); err != nil {
		return err
	}
	l.d, err = data.Dial(ctx, data.Config{SocketPath: n.DataSocket, Name: "bus-test"})
	return err
}

func (l *coldLine) slice(ctx context.Context, _ int) error {
	for range l.w.count(5, 1) {
		if err := l.once(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *coldLine) once(ctx context.Context) error {
	var got schemas.AllocateReply
	begun := time.Now()
	if err := l.c.Call(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 64 * mib, Purpose: "cold"}, &got); err != nil {
		return err
	}
	granted := time.Now()
	m, err := l.d.Map(ctx, got.Handle.Claim, data.ReadWrite)
	if err != nil {
		return err
	}
	mapped := time.Now()
	for _, s := range m.Segments {
		for i := 0; i < len(s.Bytes); i += os.Getpagesize() {
			s.Bytes[i] = 1
		}
	}
	end := time.Now()
	l.whole, l.grants = append(l.whole, end.Sub(begun)), append(l.grants, granted.Sub(begun))
	l.maps, l.touchs = append(l.maps, mapped.Sub(granted)), append(l.touchs, end.Sub(mapped))
	if err := l.d.Unmap(ctx, m); err != nil {
		return err
	}
	if err := l.c.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: got.AllocationID}, nil); err != nil {
		return err
	}
	return rest(ctx, l.c) // until the segment is given back
}

func (l *coldLine) report(r *Report) {
	r.Raw["cold_64mib"], r.Raw["cold_64mib_allocate"] = l.whole.Summary(0), l.grants.Summary(0)
	r.Raw["cold_64mib_map"], r.Raw["cold_64mib_first_touch"] = l.maps.Summary(0), l.touchs.Summary(0)
}

func (l *coldLine) close() {
	if l.d != nil {
		_ = l.d.Close()
	}
}

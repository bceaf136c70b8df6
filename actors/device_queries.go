package actors

import (
	"sort"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// page lists up to limit of a tenant's grants and waiting requests that match, in the order of their ids after
// cursor, and the cursor of the next page.
func (d *deviceActor) page(tenant string, limit int, cursor string, match func(*ledger.Grant) bool) ([]schemas.Allocation, string) {
	var found []*ledger.Grant
	add := func(g *ledger.Grant) {
		if g.Owner.Tenant == tenant && match(g) && (cursor == "" || g.ID.String() > cursor) {
			found = append(found, g)
		}
	}
	d.core.Grants(add)
	d.core.Waiting(func(_ int, r *ledger.Request) { add(d.awaited(r)) })
	sort.Slice(found, func(i, j int) bool { return string(found[i].ID[:]) < string(found[j].ID[:]) })
	next := ""
	if len(found) > limit {
		found = found[:limit]
		next = found[limit-1].ID.String()
	}
	out := make([]schemas.Allocation, len(found))
	for i, g := range found {
		out[i] = d.allocation(g)
	}
	return out, next
}

// awaited shows a waiting request as the grant that it will be.
func (d *deviceActor) awaited(r *ledger.Request) *ledger.Grant {
	return r.Awaited(string(d.kind), d.house.wallAt(r.Arrived()))
}

// usage renders one device of get_usage: to who does not see all, what others have is one.
func (d *deviceActor) usage(all bool, viewer string) schemas.DeviceUsage {
	u := schemas.DeviceUsage{DeviceID: d.id, MemoryInfo: d.memoryInfo(), PeakMemory: d.core.Stats().Peak}
	class, tenant := map[string]*schemas.Share{}, map[string]*schemas.Share{}
	process := map[int]*schemas.ProcessShare{}
	add := func(m map[string]*schemas.Share, name string, bytes int64) {
		s, ok := m[name]
		if !ok {
			s = &schemas.Share{Name: name}
			m[name] = s
		}
		s.Bytes += bytes
		s.Count++
	}
	d.core.Grants(func(g *ledger.Grant) {
		if !all && g.Owner.Tenant != viewer {
			add(tenant, ledger.EverybodyElse, g.Granted)
			return
		}
		u.AllocationCount++
		if g.Class == ledger.ClassWeights {
			u.ModelCount++
		}
		add(class, string(g.Class), g.Counted())
		add(tenant, g.Owner.Tenant, g.Counted())
		pid := int(g.Owner.PID)
		if g.Follows.PID != 0 {
			pid = int(g.Follows.PID)
		}
		if pid != 0 {
			p, ok := process[pid]
			if !ok {
				p = &schemas.ProcessShare{PID: pid}
				process[pid] = p
			}
			p.Bytes += g.Counted()
			p.Count++
		}
	})
	u.ByClass, u.ByTenant = shares(class), shares(tenant)
	for _, p := range process {
		u.ByProcess = append(u.ByProcess, *p)
	}
	sort.Slice(u.ByProcess, func(i, j int) bool { return u.ByProcess[i].PID < u.ByProcess[j].PID })
	return u
}

func shares(m map[string]*schemas.Share) []schemas.Share {
	out := make([]schemas.Share, 0, len(m))
	for _, s := range m {
		out = append(out, *s)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// getAllocation answers get_allocation.
func (d *deviceActor) getAllocation(c *call, id uuid.UUID) {
	d.take(seam.QueryLane, c, func() {
		g, err := d.core.FindGrant(id, c.Tenant)
		if err != nil {
			c.fail(err)
			return
		}
		r := &schemas.GetAllocationReply{Allocation: d.allocation(g)}
		if c.Data.(*schemas.GetAllocationRequest).IncludeHistory {
			for _, h := range g.History() {
				r.History = append(r.History, schemas.AllocationItem{Event: schemas.EventKind(h.Event), AllocationID: g.ID.String(), DeviceID: d.id,
					Tenant: g.Owner.Tenant, SizeBytes: g.Size, GrantedBytes: g.Granted, Class: schemas.Class(g.Class), Reason: h.Detail, Timestamp: h.At})
			}
		}
		c.done(r, nil)
	})
}

// waiting renders the tenant's part of the device's queue.
func (d *deviceActor) waiting(tenant string) (out []schemas.Waiting) {
	d.core.Waiting(func(position int, r *ledger.Request) {
		if r.Owner.Tenant != tenant {
			return
		}
		w := schemas.Waiting{Tenant: tenant, DeviceID: d.id, SizeBytes: r.Size, Priority: r.Priority, Position: position,
			WaitsFor: r.Reason(), Deadline: d.house.wallAt(r.Deadline())}
		switch a := r.Ref.(type) {
		case *grantCall:
			w.OperationID = a.c.operation
		case *move:
			w.OperationID = a.c.operation
		case *weightsCall:
			w.OperationID = a.operation
		}
		out = append(out, w)
	})
	return out
}

// filter makes the predicate of get_allocations.
func filter(in *schemas.GetAllocationsRequest) func(*ledger.Grant) bool {
	return func(g *ledger.Grant) bool {
		return (in.Class == "" || string(g.Class) == string(in.Class)) &&
			(in.Purpose == "" || g.Purpose == in.Purpose) &&
			(in.ModelName == "" || g.Model == in.ModelName) &&
			(in.Status == "" && g.Status != ledger.StatusQueued || string(g.Status) == string(in.Status))
	}
}

// gather asks several actors for a part each and answers when the last is in. No
// goroutine waits: the actor that brings the last part answers.
type gather[T any] struct {
	left  int
	parts []T
	end   func(parts []T, err *schemas.Error)
}

// ask has each device make a part. end is called once, on one of the actors, with all
// parts in the devices' order, or with the reason why one is missing.
func ask[T any](h *House, devices []*deviceActor, part func(*deviceActor) T, end func([]T, *schemas.Error)) {
	askOn(h, seam.QueryLane, devices, part, end)
}

// askOn is ask by another lane; on the system's no part is ever missing.
func askOn[T any](h *House, lane seam.Lane, devices []*deviceActor, part func(*deviceActor) T, end func([]T, *schemas.Error)) {
	g := &gather[T]{left: len(devices), parts: make([]T, len(devices)), end: end}
	if len(devices) == 0 {
		end(nil, nil)
		return
	}
	for i, d := range devices {
		err := d.tell(lane, func() {
			p := part(d)
			if len(g.parts) == 1 {
				g.parts[0] = p
				g.end(g.parts, nil)
				return
			}
			h.sessions.tell(seam.SystemLane, func() { g.arrived(i, p) })
		})
		if err != nil {
			h.sessions.tell(seam.SystemLane, func() { g.failed(busy(d.id)) })
		}
	}
}

// arrived and failed run on the sessions actor, where the parts come together.
func (g *gather[T]) arrived(i int, p T) {
	if g.left <= 0 {
		return
	}
	g.parts[i] = p
	if g.left--; g.left == 0 {
		g.end(g.parts, nil)
	}
}

func (g *gather[T]) failed(err *schemas.Error) {
	if g.left > 0 {
		g.left = -1
		g.end(nil, err)
	}
}

// cursorOf and splitCursor make a page's end of several devices one string.
func cursorOf(device, id string) string { return device + "/" + id }

func (h *House) splitCursor(cursor string) (index int, id string, err *schemas.Error) {
	if cursor == "" {
		return 0, "", nil
	}
	for i, d := range h.devices {
		if n := len(d.id); len(cursor) > n && cursor[:n] == d.id && cursor[n] == '/' {
			return i, cursor[n+1:], nil
		}
	}
	return 0, "", schemas.Errorf(schemas.CodeInvalidRequest, "the cursor is not one of this node's").With("field", "cursor")
}

package actors

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

func percent(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// wallAt is the time of day at an instant: the same one whenever it is asked for.
func (h *House) wallAt(i clock.Instant) time.Time { return h.dial.At(i) }

// allocation renders a grant.
func (d *deviceActor) allocation(g *ledger.Grant) schemas.Allocation {
	a := schemas.Allocation{
		AllocationID: d.named.of(g.ID), Node: d.house.cfg.Node, DeviceID: d.id, SizeBytes: g.Size, GrantedBytes: g.Counted(),
		AllocationType: d.kind, Class: schemas.Class(g.Class), Alignment: g.Align, Purpose: g.Purpose, Persistent: g.Persistent,
		Priority: g.Priority, Status: schemas.AllocationStatus(g.Status),
		Owner:     schemas.Owner{Tenant: g.Owner.Tenant, User: g.Owner.User, SessionID: string(g.Owner.Session), PID: int(g.Owner.PID)},
		ModelName: g.Model, CreatedAt: g.Created, Timestamp: g.Created, LastUsed: g.LastUsed,
	}
	if a.Owner.PID == 0 {
		a.Owner.PID = int(g.Follows.PID)
	}
	for _, m := range g.Mappers {
		a.MappedBy = append(a.MappedBy, schemas.Mapper{PID: int(m.PID), SessionID: string(m.Session), Mode: schemas.MapMode(m.Mode)})
	}
	mode := schemas.MapReadWrite
	if g.Class == ledger.ClassWeights {
		mode = schemas.MapReadOnly
	}
	for _, pid := range g.Pins() {
		// Found by looking: it may hold the memory in any mode that it could have got.
		if !slices.ContainsFunc(a.MappedBy, func(m schemas.Mapper) bool { return m.PID == int(pid) }) {
			a.MappedBy = append(a.MappedBy, schemas.Mapper{PID: int(pid), Mode: mode})
		}
	}
	if g.LeaseEnds != 0 {
		end := d.house.wallAt(g.LeaseEnds)
		a.LeaseExpiresAt = &end
	}
	return a
}

// memoryInfo renders the device's bytes.
func (d *deviceActor) memoryInfo() schemas.MemoryInfo {
	f := d.core.Figures()
	m := schemas.MemoryInfo{
		DeviceID: d.id, TotalMemory: f.Limit, PhysicalMemory: f.Physical, UsedMemory: f.Used, AvailableMemory: f.Available,
		FreeMemory: f.Free, ReservedMemory: f.Reserved, RevokingMemory: f.Revoking, ZombieMemory: f.Zombie, ForeignMemory: f.Foreign,
		PooledMemory: f.Pooled, ReclaimableMemory: f.Reclaimable, ModelMemory: f.Models, UsagePercentage: percent(f.Used, f.Limit),
		FragmentationPercentage: f.Fragmentation, LargestGrantableBytes: f.Largest, DriftBytes: d.sampling.drift,
		Type: d.kind, Health: schemas.Health(d.health.String()), LastUpdated: d.house.cfg.Clock.Wall(),
	}
	if !d.sampling.at.IsZero() {
		at := d.sampling.at
		m.ObservedAt = &at
	}
	return m
}

// announce publishes what happened to grants, as one batch.
func (d *deviceActor) announce(events []ledger.Event, outcomes []ledger.Outcome) {
	wall := d.house.cfg.Clock.Wall()
	made := &struct {
		batch schemas.AllocationBatch
		few   [1]schemas.AllocationItem
	}{}
	items := made.few[:]
	if len(events) > len(items) {
		items = make([]schemas.AllocationItem, len(events))
	}
	made.batch.Items = items
	for i := range events {
		e := &events[i]
		items[i] = schemas.AllocationItem{
			Event: schemas.EventKind(e.Kind), RequestID: e.RequestID, DeviceID: d.id, Tenant: e.Owner.Tenant, SizeBytes: e.Size,
			GrantedBytes: e.Bytes, Class: schemas.Class(e.Class), Purpose: e.Purpose, QueuedMs: millis(time.Duration(e.Queued)), ModelName: e.Model, SessionID: string(e.Owner.Session),
			PID: int(e.Owner.PID), Position: e.Position, Reason: e.Reason, Timestamp: wall,
		}
		if e.Grant != (uuid.UUID{}) {
			items[i].AllocationID = d.named.of(e.Grant)
		}
		if e.Kind == ledger.EventRefused {
			items[i].ErrorCode = refusal(outcomes, e.RequestID)
		}
		if len(e.PIDs) > 0 {
			items[i].PID = int(e.PIDs[0])
		}
	}
	d.house.publish(schemas.Event{Event: items[0].Event, Subject: d.subject, Timestamp: wall, Data: &made.batch})
}

// refusal is the code with which a request was refused in the same step.
func refusal(outcomes []ledger.Outcome, requestID string) schemas.Code {
	for _, o := range outcomes {
		if r, ok := o.Ref.(interface{ requestID() string }); ok && o.Kind == ledger.OutcomeRefused && r.requestID() == requestID {
			return o.Err.Code
		}
	}
	return ""
}

// status renders one device of get_status, without what the pool adds.
func (d *deviceActor) status(in *schemas.GetStatusRequest, tenant string) schemas.DeviceStatus {
	s := schemas.DeviceStatus{DeviceID: d.id, MemoryInfo: d.memoryInfo(), LastUpdated: d.house.cfg.Clock.Wall(), Allocations: []schemas.Allocation{}}
	if in.IncludeUsageStats == nil || *in.IncludeUsageStats {
		u := d.usageStats()
		s.UsageStats = &u
	}
	if in.IncludeFragmentation {
		f := d.fragmentation()
		s.Fragmentation = &f
	}
	if in.IncludeAllocations == nil || *in.IncludeAllocations {
		limit := 100
		if in.Limit != nil {
			limit = *in.Limit
		}
		var next string
		if s.Allocations, next = d.page(tenant, limit, "", func(g *ledger.Grant) bool { return g.Status != ledger.StatusQueued }); next != "" {
			s.NextCursor = cursorOf(d.id, next) // get_allocations goes on from there
		}
	}
	s.HealthScore = d.healthScore()
	s.ModelMemory.MemoryUsageBytes, s.ModelMemory.MemoryLimitBytes, s.ModelMemory.AvailableMemoryBytes = d.modelMemory()
	return s
}

func (d *deviceActor) usageStats() schemas.UsageStats {
	st, f := d.core.Stats(), d.core.Figures()
	u := schemas.UsageStats{
		PeakMemory: st.Peak, AllocationCount: f.Grants, GrantsTotal: st.Grants, ReleasesTotal: st.Releases, RefusalsTotal: st.Refusals,
		EvictionsTotal: st.Evictions, QueueLength: f.Waiting, UptimeSeconds: d.house.cfg.Clock.Wall().Sub(d.house.started).Seconds(),
	}
	if st.Grants > 0 {
		u.AverageGrantMs = float64(st.GrantNanos) / float64(st.Grants) / 1e6
	}
	d.core.Grants(func(g *ledger.Grant) {
		if g.Class == ledger.ClassWeights {
			u.ModelCount++
		}
	})
	return u
}

func (d *deviceActor) fragmentation() schemas.Fragmentation {
	s := d.core.HeapStats()
	return schemas.Fragmentation{FragmentationPercentage: s.FragmentationPercentage, LargestFreeBytes: s.LargestFree, FreeBytes: s.SlackBytes,
		FreeBlocks: s.FreeBlocks, Segments: s.Segments, InternalWasteBytes: s.InternalWaste}
}

// healthScore is 100 less the worst of what is wrong (contract, Actions).
func (d *deviceActor) healthScore() float64 {
	worst := map[schemas.Health]float64{"degraded": 30, "failing": 70, "lost": 100}[schemas.Health(d.health.String())]
	f := d.core.Figures()
	if u := percent(f.Used, f.Limit); u > 85 {
		worst = max(worst, min(40, (u-85)/15*40))
	}
	if drift := d.sampling.drift; drift > f.Limit/100 || -drift > f.Limit/100 {
		worst = max(worst, 20)
	}
	seen := d.sampling.at
	if seen.IsZero() {
		seen = d.house.started // the first sample is on its way
	}
	if d.house.cfg.Clock.Wall().Sub(seen) > staleAfter {
		worst = max(worst, 20)
	}
	if f.Deficit == 0 && f.Waiting > 0 {
		worst = max(worst, 20) // bytes enough, but not where they are needed
	}
	return max(0, 100-worst)
}

// staleAfter is the age at which outside figures count as old: three samples missed.
const staleAfter = 3 * time.Second

package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
)

// restTime is how long the node may take to come to rest after the load: sessions that were
// away at a kill are waited for, too.
const restTime = 90 * time.Second

// firstSegment is the least id of a segment in the vault; below it is the ledger.
const firstSegment = 256

// Sum is two figures of one thing, found independently.
type Sum struct {
	Device, What string
	One, Other   int64
}

// settle holds a few grants and models, and counts; then gives all back, and counts again.
func (s *soak) settle(ctx context.Context) error {
	if err := s.rest(ctx, false); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(s.o.Seed, 0))
	held := map[*grant]*tenant{}
	for range 12 {
		t := s.tenants[r.IntN(len(s.tenants))]
		in := &schemas.AllocateRequest{DeviceID: s.devices[r.IntN(len(s.devices))], SizeBytes: size(r), Purpose: "to be counted"}
		got, err := s.allocate(t, in, uuid.NewString())
		if err != nil {
			continue
		}
		if g, err := s.mapGrant(t, got, in); err == nil {
			held[g] = t
		}
	}
	for _, m := range s.models[:min(2, len(s.models))] {
		s.command(s.tenants[0], schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: m.name, Path: m.path, DeviceID: s.devices[0]}, nil)
	}
	if err := s.rest(ctx, false); err != nil {
		return err
	}
	s.sums(ctx, "while held")
	for g, t := range held {
		if err := g.check(); err != nil {
			s.truth.violate("pattern", "%v", err)
		}
		s.drop(t, g)
	}
	for _, t := range s.tenants {
		s.unloadAll(ctx, t)
	}
	if err := s.rest(ctx, true); err != nil {
		return err
	}
	s.sums(ctx, "after all was given back")
	return nil
}

// unloadAll unloads a tenant's models. A reference whose release was lost with a node that was
// killed keeps its model until the lease ends, and a session that did not come back until it is
// no longer waited for.
func (s *soak) unloadAll(ctx context.Context, t *tenant) {
	for begun := time.Now(); ; {
		call, stop := context.WithTimeout(ctx, callTime)
		err := t.bus.Do(call, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: schemas.ModelNameAll}, nil, nil)
		stop()
		if !errors.Is(err, schemas.Errorf(schemas.CodeModelInUse, "")) || time.Since(begun) > restTime || !pause(ctx, 100*time.Millisecond) {
			s.truth.judge(begun, "unload all", err, schemas.CodeModelNotFound)
			return
		}
	}
}

// rest waits until nobody waits and nothing is on its way, twice in a row the same; with empty
// also until nothing is held.
func (s *soak) rest(ctx context.Context, empty bool) error {
	limit, stop := context.WithTimeout(ctx, restTime)
	defer stop()
	same, last := 0, ""
	for same < 3 {
		var r schemas.GetUsageReply
		if err := s.tenants[0].bus.Call(limit, schemas.ActionGetUsage, nil, &r); err != nil {
			return fmt.Errorf("counting: %w", err)
		}
		now, busy := "", false
		for _, d := range r.Devices {
			m := d.MemoryInfo
			now += fmt.Sprintf("%s: used %d, pooled %d, revoking %d, zombie %d, grants %d; ", m.DeviceID, m.UsedMemory-m.ForeignMemory, m.PooledMemory, m.RevokingMemory, m.ZombieMemory, d.AllocationCount)
			busy = busy || m.RevokingMemory+m.ZombieMemory > 0 || empty && m.UsedMemory != m.ForeignMemory
		}
		for _, t := range s.everybody() {
			var q schemas.GetQueueReply
			if err := t.bus.Call(limit, schemas.ActionGetQueue, nil, &q); err != nil {
				return fmt.Errorf("counting: %w", err)
			}
			busy = busy || len(q.Waiting) > 0
		}
		if same++; busy || now != last {
			same, last = 0, now
		}
		if !pause(limit, 100*time.Millisecond) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			s.truth.violate("rest", "the node did not come to rest within %s: %s%s", restTime, last, s.whoIsThere(ctx))
			return nil
		}
	}
	return nil
}

// whoIsThere describes a few of the grants that are left.
func (s *soak) whoIsThere(ctx context.Context) string {
	var out strings.Builder
	for _, t := range s.everybody() {
		limit := 5
		var r schemas.GetAllocationsReply
		if err := t.bus.Call(ctx, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{Limit: &limit}, &r); err != nil {
			return err.Error()
		}
		for _, a := range r.Allocations {
			fmt.Fprintf(&out, "%s of %s, %s, for %q, %s, %d bytes, owner %+v, mapped by %+v; ", a.AllocationID, t.name, a.CreatedAt.Format("15:04:05.000"), a.Purpose,
				a.Status, a.SizeBytes, a.Owner, a.MappedBy)
		}
	}
	return out.String()
}

// sums adds up what can be found in two ways.
func (s *soak) sums(ctx context.Context, when string) {
	byStatus, err := s.allocations(ctx)
	if err != nil {
		s.truth.violate("sums", "%v", err)
		return
	}
	var r schemas.GetUsageReply
	if err := s.tenants[0].bus.Call(ctx, schemas.ActionGetUsage, nil, &r); err != nil {
		s.truth.violate("sums", "%v", err)
		return
	}
	var stats []vault.Stat
	if s.vault != "" {
		if stats, err = vault.Query(ctx, vault.ClientConfig{SocketPath: s.vault}); err != nil {
			s.truth.violate("sums", "%v", err)
		}
	} else {
		s.truth.note("the vault's memory was not counted: its socket was not named")
	}
	for _, d := range r.Devices {
		m := d.MemoryInfo
		listed := byStatus[m.DeviceID]
		granted := m.UsedMemory - m.ReservedMemory - m.RevokingMemory - m.ZombieMemory - m.ForeignMemory
		s.equal(m.DeviceID, "active grants listed, granted bytes of memory_info, "+when, listed[schemas.AllocationActive], granted+m.ReservedMemory)
		s.equal(m.DeviceID, "revoking grants listed, revoking_memory, "+when, listed[schemas.AllocationRevoking], m.RevokingMemory)
		s.equal(m.DeviceID, "zombie grants listed, zombie_memory, "+when, listed[schemas.AllocationZombie], m.ZombieMemory)
		if stats == nil {
			continue
		}
		var bytes, blocks int64
		for _, st := range stats {
			if st.ID >= firstSegment && st.Label == m.DeviceID {
				bytes, blocks = bytes+st.Bytes, blocks+st.AllocatedBytes
			}
		}
		segments := granted + m.RevokingMemory + m.ZombieMemory + m.PooledMemory
		s.equal(m.DeviceID, "sizes of the vault's files, segments of memory_info, "+when, bytes, segments)
		if m.Type == schemas.DeviceTypeRAM {
			s.equal(m.DeviceID, "blocks of the vault's files, segments of memory_info, "+when, blocks, segments)
		} else if blocks > bytes {
			s.truth.violate("sums", "%s: %d bytes of blocks in files of %d", m.DeviceID, blocks, bytes)
		}
	}
}

func (s *soak) equal(device, what string, one, other int64) {
	s.truth.mu.Lock()
	s.truth.sums = append(s.truth.sums, Sum{device, what, one, other})
	s.truth.mu.Unlock()
	if one != other {
		s.truth.violate("sums", "%s: %s: %d and %d differ by %d", device, what, one, other, one-other)
	}
}

// allocations lists every tenant's grants, page by page, and sums them by device and status.
func (s *soak) allocations(ctx context.Context) (map[string]map[schemas.AllocationStatus]int64, error) {
	out := map[string]map[schemas.AllocationStatus]int64{}
	for _, t := range s.everybody() {
		for cursor := ""; ; {
			limit := 7 // small, so that pages are tried
			var r schemas.GetAllocationsReply
			err := t.bus.Call(ctx, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{Limit: &limit, Cursor: cursor}, &r)
			if err != nil {
				return nil, err
			}
			for _, a := range r.Allocations {
				if out[a.DeviceID] == nil {
					out[a.DeviceID] = map[schemas.AllocationStatus]int64{}
				}
				out[a.DeviceID][a.Status] += a.GrantedBytes
			}
			if cursor = r.NextCursor; cursor == "" {
				break
			}
		}
	}
	return out, nil
}

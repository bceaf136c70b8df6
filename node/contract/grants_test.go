package contract

import (
	"testing"
	"time"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
)

func TestAllocateAnswersEveryField(t *testing.T) {
	inBoth(t, func(c *caller) {
		r := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 33*mib + 1, "allocation_type": "vram", "class": "Scratch", "alignment": 65536,
			"purpose": "activations", "priority": 7, "lease_seconds": 3600, "timeout_seconds": 5, "clear": true}, id("first"))
		// A GPU's granule is 2 MiB: 34 MiB are given up for 33 MiB and a byte.
		c.want(r, "status", "completed", "success", true, "device_id", "gpu-0", "allocation.size_bytes", 33*mib+1, "allocation.granted_bytes", 34*mib,
			"allocation.allocation_type", "VRAM", "allocation.class", "scratch", "allocation.alignment", 65536, "allocation.purpose", "activations",
			"allocation.priority", 7, "allocation.persistent", false, "allocation.status", "active", "allocation.owner.tenant", "default",
			"allocation.node", "test", "available_memory_bytes", 990*mib, "utilization_percentage", 100*34.0/1024,
			"handle.kind", "memfd", "handle.node", "test", "handle.data_socket", c.n.Info().DataSocket, "handle.size_bytes", 33*mib+1)
		if text(r, "allocation.allocation_id") != text(r, "allocation_id") || text(r, "allocation.timestamp") != text(r, "allocation.created_at") {
			c.t.Errorf("allocation %v", r)
		}
		if s := until(c.t, r, "allocation.lease_expires_at"); s < 3500*time.Second || s > 3600*time.Second {
			c.t.Errorf("the lease of an hour ends in %v", s)
		}
		if s := until(c.t, r, "handle.claim_expires_at"); s < 50*time.Second || s > 60*time.Second {
			c.t.Errorf("the claim ends in %v", s)
		}
		e := c.await("allocated", "allocation.test.gpu-0", of("allocation_id", text(r, "allocation_id")))
		c.want(e.data, "request_id", "first", "device_id", "gpu-0", "tenant", "default", "class", "scratch", "granted_bytes", 34*mib)
		m := c.memory()
		c.want(m, "used_memory", 34*mib, "total_memory", 1024*mib, "available_memory", 990*mib, "usage_percentage", 100*34.0/1024,
			"zombie_memory", 0, "revoking_memory", 0, "foreign_memory", 0, "model_memory", 0, "reclaimable_memory", 0, "type", "VRAM", "health", "healthy")
		if free := num(m, "free_memory") + num(m, "pooled_memory"); free != 990*mib {
			c.t.Errorf("free and pooled make %d", free)
		}
		gone := c.do("deallocate", obj{"allocation_id": "test." + text(r, "allocation_id")})
		c.want(gone, "success", true, "freed_bytes", 34*mib, "confirmed", true, "zombie_bytes", 0, "available_memory_bytes", 1024*mib, "utilization_percentage", 0)
		e = c.await("deallocated", "allocation", of("allocation_id", text(r, "allocation_id")))
		c.want(e.data, "granted_bytes", 34*mib, "reason", "deallocated by its client")
	})
}

func until(t testing.TB, v any, path string) time.Duration {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text(v, path))
	if err != nil {
		t.Fatal(err)
	}
	return time.Until(at)
}

func TestAllocateByTypeClassAndDevice(t *testing.T) {
	inBoth(t, func(c *caller) {
		// An only device of its type need not be named; the type is a name in any case, or a number.
		for _, kind := range []any{"VRAM", "vram", 2} {
			r := c.do("allocate", obj{"size_bytes": 2 * mib, "allocation_type": kind})
			c.want(r, "device_id", "gpu-0")
			c.release(r)
		}
		r := c.do("allocate", obj{"size_bytes": 2 * mib, "memory_type": "Ram", "device_id": ""})
		c.want(r, "device_id", "ram-0", "allocation.allocation_type", "RAM")
		c.release(r)
		r = c.do("allocate", obj{"size_bytes": 2 * mib, "device_id": "test/gpu-0"})
		c.want(r, "device_id", "gpu-0")
		c.release(r)
		c.want(c.fails("INVALID_REQUEST", "allocate", obj{"size_bytes": 2 * mib}), "field", "device_id")
		c.want(c.fails("INVALID_REQUEST", "allocate", obj{"size_bytes": 2 * mib, "device_id": "gpu-0", "allocation_type": "RAM"}), "field", "allocation_type")
		c.fails("INVALID_DEVICE", "allocate", obj{"size_bytes": 2 * mib, "allocation_type": "UnifiedMemory"})

		state := c.grant(2*mib, "class", "state")
		c.want(state, "allocation.class", "state", "allocation.persistent", true)
		before := c.memory()
		res := c.grant(10*mib+1, "class", "reservation")
		c.want(res, "handle", nil, "allocation.granted_bytes", 10*mib+1)
		m := c.memory()
		c.want(m, "reserved_memory", 10*mib+1, "used_memory", num(before, "used_memory")+10*mib+1)
		c.fails("INVALID_REQUEST", "get_handle", obj{"allocation_id": text(res, "allocation_id")})
		c.release(res)
		c.want(c.memory(), "reserved_memory", 0)
		c.release(state)
	}, nodetest.Devices("sim:gpu-0=1GiB", "ram:ram-0=64MiB"))
}

func TestAlignment(t *testing.T) {
	inBoth(t, func(c *caller) {
		d := c.session(nil)
		for _, a := range []int64{1, 256, 4096, 65536, 2 * mib} {
			// An odd block before it, so that the next one would lie badly.
			odd := c.grant(5000)
			r := c.grant(10_000, "alignment", a)
			m := c.maps(d, r["handle"], data.ReadWrite)
			if off := m.Segments[0].Offset; off%a != 0 {
				c.t.Errorf("alignment %d: offset %d", a, off)
			}
			c.unmaps(d, m)
			c.release(r)
			c.release(odd)
		}
		for _, a := range []int64{3, -4096, 4 * mib} {
			c.want(c.fails("INVALID_REQUEST", "allocate", obj{"device_id": "gpu-0", "size_bytes": 1, "alignment": a}), "field", "alignment")
		}
	})
}

func TestTooMuchMemory(t *testing.T) {
	inBoth(t, func(c *caller) {
		d := c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": 1026 * mib})
		c.want(d, "required_bytes", 1026*mib, "available_bytes", 1024*mib, "shortfall_bytes", 2*mib, "largest_grantable_bytes", 1024*mib)
		if _, ok := d["holders"].([]any); !ok {
			c.t.Errorf("details %v lack holders", d)
		}
		if _, ok := d["position"].(int64); !ok {
			c.t.Errorf("details %v lack the position", d)
		}
		all := c.grant(1024 * mib)
		id0 := "impatient"
		d = c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": 2 * mib, "timeout_seconds": 0}, id(id0))
		c.want(d, "required_bytes", 2*mib, "available_bytes", 0, "shortfall_bytes", 2*mib, "largest_grantable_bytes", 0, "holders.0.bytes", 1024*mib)
		e := c.await("refused", "allocation", of("request_id", id0))
		c.want(e.data, "size_bytes", 2*mib, "error_code", "OUT_OF_MEMORY")
		c.want(c.do("get_status", obj{"device_id": "gpu-0"}), "usage_stats.refusals_total", 2, "usage_stats.peak_memory", 1024*mib)
		c.release(all)
	})
}

func TestQueueIsServedByPriorityThenAge(t *testing.T) {
	inBoth(t, func(c *caller) {
		all := c.grant(1024 * mib)
		queued := map[string]obj{}
		for i, q := range []struct {
			name     string
			priority int
			place    int
		}{{"old", 0, 1}, {"young", 0, 2}, {"urgent", 5, 1}, {"idle", -5, 4}} {
			r := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 1024 * mib, "priority": q.priority, "wait_ms": 0}, id(q.name))
			c.want(r, "status", "queued", "position", q.place)
			if text(r, "reason") == "" {
				c.t.Errorf("%s waits without a reason: %v", q.name, r)
			}
			queued[q.name] = r
			e := c.await("queued", "allocation", of("request_id", q.name))
			c.want(e.data, "size_bytes", 1024*mib, "position", q.place)
			if got := size(c.do("get_queue", obj{}), "waiting"); got != i+1 {
				c.t.Errorf("%d wait, not %d", got, i+1)
			}
		}
		w := c.do("get_queue", obj{"device_id": "gpu-0"})
		for i, name := range []string{"urgent", "old", "young", "idle"} {
			c.want(at(w, "waiting").([]any)[i], "operation_id", text(queued[name], "operation_id"), "position", i+1, "device_id", "gpu-0", "tenant", "default",
				"size_bytes", 1024*mib)
		}
		if s := until(c.t, w, "waiting.0.deadline"); s < 20*time.Second || s > 30*time.Second {
			c.t.Errorf("a request without timeout_seconds is refused in %v", s)
		}
		c.want(c.do("get_status", obj{"device_id": "gpu-0"}), "usage_stats.queue_length", 4)
		c.want(c.do("get_pressure", obj{"device_id": "gpu-0"}), "pressure.deficit_bytes", 1024*mib)

		prev := all
		for _, name := range []string{"urgent", "old", "young"} {
			c.release(prev)
			op := c.do("get_operation", obj{"operation_id": text(queued[name], "operation_id"), "wait_ms": 10_000})
			c.want(op, "operation.status", "completed", "operation.action", "allocate", "operation.request_id", name)
			prev = at(op, "operation.result").(obj)
			c.fits("allocate", obj{}, prev)
			if num(prev, "queued_ms") == 0 && at(prev, "queued_ms") == int64(0) {
				c.t.Errorf("%s waited 0 ms", name)
			}
		}
		// The last one is cancelled.
		r := c.do("cancel_operation", obj{"request_id": "idle"}, id("stop"))
		c.want(r, "operation.status", "cancelled", "operation.operation_id", text(queued["idle"], "operation_id"), "operation.error.error_code", "CANCELLED")
		c.want(c.do("get_queue", obj{}), "waiting", []any{})
		c.want(c.do("get_operation", obj{"operation_id": text(queued["idle"], "operation_id")}), "operation.status", "cancelled", "operation.error.status_code", 499)
		c.release(prev)
	})
}

func TestQueueDeadline(t *testing.T) {
	inBoth(t, func(c *caller) {
		all := c.grant(1024 * mib)
		// Answered when the deadline has passed, as wait_ms is longer.
		d := c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": 2 * mib, "timeout_seconds": 1, "wait_ms": 10_000})
		c.want(d, "required_bytes", 2*mib, "shortfall_bytes", 2*mib)
		c.want(c.do("get_queue", obj{}), "waiting", []any{})
		c.release(all)
	})
}

// A claim is single-use; get_handle makes a fresh one, and what was written is there.
func TestGetHandle(t *testing.T) {
	inBoth(t, func(c *caller) {
		r := c.grant(40 * mib)
		d := c.session(nil)
		m := c.maps(d, r["handle"], data.ReadWrite)
		copy(m.Segments[0].Bytes[7:], "pressure")
		a := c.do("get_allocation", obj{"allocation_id": text(r, "allocation_id"), "include_history": true})
		c.want(a, "allocation.mapped_by.0.mode", "rw", "allocation.mapped_by.0.session_id", d.Session().ID, "allocation.owner.session_id", d.Session().ID,
			"history.0.event", "allocated", "history.0.allocation_id", text(r, "allocation_id"))
		if size(a, "history") < 2 {
			c.t.Errorf("the mapping is not in the history: %v", a)
		}
		c.unmaps(d, m)
		if _, err := d.Map(t0(c.t), text(r, "handle.claim"), data.ReadWrite); err == nil {
			c.t.Error("a claim was redeemed twice")
		}
		h := c.do("get_handle", obj{"allocation_id": text(r, "allocation_id"), "device_id": "gpu-0"})
		m = c.maps(d, h["handle"], data.ReadOnly)
		if got := string(m.Segments[0].Bytes[7:15]); got != "pressure" {
			c.t.Errorf("read %q", got)
		}
		c.unmaps(d, m)
		c.release(r)
		c.fails("ALLOCATION_NOT_FOUND", "get_handle", obj{"allocation_id": text(r, "allocation_id")})
	})
}

func TestClearedForEveryOwner(t *testing.T) {
	inBoth(t, func(c *caller) {
		d := c.session(nil)
		write := func(r obj) {
			m := c.maps(d, r["handle"], data.ReadWrite)
			for i := range m.Segments[0].Bytes {
				m.Segments[0].Bytes[i] = 0xEE
			}
			c.unmaps(d, m)
			c.release(r)
		}
		// The same owner gets its own bytes back as they are, unless it wants them clear.
		write(c.grant(4 * mib))
		r := c.grant(4*mib, "clear", true)
		m := c.maps(d, r["handle"], data.ReadOnly)
		for i, b := range m.Segments[0].Bytes {
			if b != 0 {
				c.t.Fatalf("byte %d is %#x", i, b)
			}
		}
		c.unmaps(d, m)
		c.release(r)
	})
}

func TestLeaseExpiresAndIsRenewed(t *testing.T) {
	inBoth(t, func(c *caller) {
		short, long := c.grant(2*mib, "lease_seconds", 1), c.grant(2*mib, "lease_seconds", 1)
		r := c.do("renew", obj{"allocation_ids": []any{text(long, "allocation_id")}, "lease_seconds": 600})
		c.want(r, "renewed.0.allocation_id", text(long, "allocation_id"))
		if s := until(c.t, r, "renewed.0.lease_expires_at"); s < 590*time.Second || s > 600*time.Second {
			c.t.Errorf("renewed for %v", s)
		}
		e := c.await("expired", "allocation", of("allocation_id", text(short, "allocation_id")))
		c.want(e.data, "reason", "its lease ran out", "granted_bytes", 2*mib)
		c.fails("ALLOCATION_NOT_FOUND", "get_allocation", obj{"allocation_id": text(short, "allocation_id")})
		c.fails("ALLOCATION_NOT_FOUND", "renew", obj{"allocation_ids": []any{text(short, "allocation_id")}, "lease_seconds": 1})
		c.do("get_allocation", obj{"allocation_id": text(long, "allocation_id")})
		c.release(long)
	})
}

func TestSessionBoundGrantsEndWithTheirSession(t *testing.T) {
	inBoth(t, func(c *caller) {
		d := c.session(nil)
		bound := c.grant(2*mib, "session_id", d.Session().ID)
		c.want(bound, "allocation.owner.session_id", d.Session().ID)
		if num(bound, "allocation.owner.pid") == 0 {
			c.t.Error("the owner has no pid")
		}
		keep := c.grant(2*mib, "session_id", d.Session().ID, "persistent", true)
		// Without session or lease a grant is bound to the first that maps it read-write.
		first := c.grant(2 * mib)
		c.maps(d, first["handle"], data.ReadWrite)
		free := c.grant(2 * mib)
		if err := d.Close(); err != nil {
			c.t.Fatal(err)
		}
		for _, g := range []obj{bound, first} {
			e := c.await("deallocated", "allocation", of("allocation_id", text(g, "allocation_id")))
			c.want(e.data, "reason", "its owner's session ended")
		}
		for _, g := range []obj{keep, free} {
			c.do("get_allocation", obj{"allocation_id": text(g, "allocation_id")})
			c.release(g)
		}
		c.fails("STALE_HANDLE", "allocate", obj{"device_id": "gpu-0", "size_bytes": 1, "session_id": "nobody"})
	})
}

func TestDeallocateInUse(t *testing.T) {
	inBoth(t, func(c *caller) {
		revoked := make(chan data.Revocation, 1)
		d := c.session(func(r data.Revocation) { revoked <- r })
		r := c.grant(20*mib, "persistent", true)
		c.maps(d, r["handle"], data.ReadWrite)
		in := obj{"allocation_id": text(r, "allocation_id")}
		c.fails("ALLOCATION_IN_USE", "deallocate", in)
		c.want(c.do("deallocate", obj{"allocation_id": in["allocation_id"], "dry_run": true}), "plan.outcome", "refused")
		gone := c.do("deallocate", obj{"allocation_id": in["allocation_id"], "force": true, "deadline_ms": 10_000, "wait_ms": 15_000})
		c.want(gone, "confirmed", true, "freed_bytes", 20*mib, "zombie_bytes", 0)
		rv := <-revoked
		if rv.AllocationID != in["allocation_id"] || rv.Reason == "" || rv.Deadline <= 0 || rv.Deadline > 10*time.Second {
			c.t.Errorf("revoked %+v", rv)
		}
		c.want(c.memory(), "used_memory", 0)
	})
}

// Who does not let go by the deadline turns the bytes into zombies; they are confirmed
// when it does.
func TestZombieBytes(t *testing.T) {
	inBoth(t, func(c *caller) {
		hold := make(chan struct{})
		d := c.session(func(data.Revocation) { <-hold })
		r := c.grant(20*mib, "persistent", true)
		c.maps(d, r["handle"], data.ReadWrite)
		id := text(r, "allocation_id")
		gone := c.do("deallocate", obj{"allocation_id": id, "force": true, "deadline_ms": 50, "wait_ms": 15_000})
		c.want(gone, "success", true, "confirmed", false, "freed_bytes", 0, "zombie_bytes", 20*mib)
		c.want(c.memory(), "zombie_memory", 20*mib, "used_memory", 20*mib, "revoking_memory", 0)
		c.want(c.do("get_allocation", obj{"allocation_id": id}), "allocation.status", "zombie")
		c.want(c.do("get_allocations", obj{"status": "zombie"}), "allocations.0.allocation_id", id)
		c.want(c.do("get_pressure", obj{"device_id": "gpu-0"}), "pressure.zombie_memory", 20*mib)
		e := c.await("zombie", "allocation", of("allocation_id", id))
		if num(e.data, "pid") == 0 {
			c.t.Errorf("a zombie without the pid that pins it: %v", e.data)
		}
		c.fails("STALE_HANDLE", "get_handle", obj{"allocation_id": id})
		close(hold)
		c.await("confirmed", "allocation", of("allocation_id", id))
		c.want(c.memory(), "zombie_memory", 0, "used_memory", 0)
		c.fails("ALLOCATION_NOT_FOUND", "get_allocation", obj{"allocation_id": id})
	}, nodetest.Set(func(*node.Config) {}))
}

func TestDeallocateWaitIsShorterThanItsDeadline(t *testing.T) {
	inBoth(t, func(c *caller) {
		hold := make(chan struct{})
		d := c.session(func(data.Revocation) { <-hold })
		r := c.grant(20*mib, "persistent", true)
		c.maps(d, r["handle"], data.ReadWrite)
		p := c.do("deallocate", obj{"allocation_id": text(r, "allocation_id"), "force": true, "deadline_ms": 60_000, "wait_ms": 20})
		c.want(p, "status", "running")
		c.want(c.memory(), "revoking_memory", 20*mib, "used_memory", 20*mib)
		c.want(c.do("get_allocation", obj{"allocation_id": text(r, "allocation_id")}), "allocation.status", "revoking")
		close(hold)
		op := c.do("get_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 10_000})
		c.want(op, "operation.status", "completed", "operation.result.confirmed", true, "operation.result.freed_bytes", 20*mib)
		c.fits("deallocate", obj{}, at(op, "operation.result").(obj))
	})
}

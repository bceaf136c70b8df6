package conform

import (
	"fmt"
	"time"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// seed of the patterns that are written.
const seed = 0x15_0B_A2

// effects are hand-written checks of what commands do.
func (c caller) effects() []check {
	var out []check
	add := func(a schemas.Action, what string, run func()) {
		out = append(out, check{string(a) + "/" + c.f.name + "/" + what, run})
	}
	c.grantEffects(add)
	c.leaseEffects(add)
	c.queueEffects(add)
	c.queryEffects(add)
	c.limitEffects(add)
	c.byteEffects(add)
	c.roomEffects(add)
	c.shareEffects(add)
	c.lineEffects(add)
	c.slowEffects(add)
	c.recEffects(add)
	if c.modelPath != "" {
		c.modelEffects(add)
	}
	return out
}

type adder func(a schemas.Action, what string, run func())

// grantEffects are of allocate, deallocate and get_handle.
func (c caller) grantEffects(add adder) {
	add(schemas.ActionAllocate, "is-counted", func() {
		before := c.memory(c.device)
		g := c.grant(c.device, 5*mib, "purpose", "conform")
		bytes := num(g, "allocation.granted_bytes")
		if bytes < 5*mib {
			fail("granted %d bytes of %d", bytes, 5*mib)
		}
		after := c.memory(c.device)
		want(after, "used_memory", num(before, "used_memory")+bytes+num(after, "foreign_memory")-num(before, "foreign_memory"))
		one := c.do(schemas.ActionGetAllocation, object{"allocation_id": text(g, "allocation_id"), "include_history": true})
		want(one, "allocation.size_bytes", 5*mib, "allocation.purpose", "conform", "allocation.status", "active", "allocation.device_id", c.device, "allocation.class", "scratch")
		listed := c.do(schemas.ActionGetAllocations, object{"device_id": c.device, "purpose": "conform"})
		want(listed, "allocations.0.allocation_id", text(g, "allocation_id"))
	})
	add(schemas.ActionAllocate, "is-published", func() {
		g := c.grant(c.device, mib)
		id := text(g, "allocation_id")
		e := c.await(schemas.EventAllocated, "events.allocation", of("allocation_id", id))
		want(e.data, "size_bytes", mib, "device_id", c.device)
		c.release(g)
		c.await(schemas.EventDeallocated, "events.allocation", of("allocation_id", id))
	})
	for _, device := range c.devices {
		add(schemas.ActionAllocate, "is-zero-and-whole-on-"+device, func() {
			g := c.grant(device, 3*mib+4096)
			m := c.maps(g, data.ReadWrite)
			total := int64(0)
			for _, s := range m.Segments {
				for i, b := range s.Bytes {
					if b != 0 {
						fail("byte %d is %d", total+int64(i), b)
					}
				}
				total += int64(len(s.Bytes))
			}
			if total != 3*mib+4096 {
				fail("%d bytes are mapped of %d", total, 3*mib+4096)
			}
		})
		add(schemas.ActionAllocate, "is-shared-with-a-second-process-on-"+device, func() {
			g := c.grant(device, 2*mib)
			fill(c.maps(g, data.ReadWrite), seed)
			c.secondSees(text(g, "allocation_id"), pattern(seed, 2*mib))
		})
	}
	if c.ram != "" {
		add(schemas.ActionAllocate, "is-the-kernel's-bytes", func() {
			const bytes = 40 * mib
			pooled := num(c.memory(c.ram), "pooled_memory")
			before := c.blocks()
			g := c.grant(c.ram, bytes)
			after := c.blocks()
			// What was pooled is granted first.
			if grew := after - before + pooled; grew < bytes {
				fail("%d bytes were granted; the kernel's blocks grew by %d, %d were pooled", bytes, after-before, pooled)
			}
			c.release(g)
			c.eventually(func() string {
				kept := num(c.memory(c.ram), "pooled_memory")
				// The pool may be making or giving back a segment meanwhile; half of what was
				// granted is more than its largest.
				if now := c.blocks(); now-before > kept-pooled+bytes/2 {
					return fmt.Sprintf("after the release the kernel has %d bytes more than before, %d more are pooled", now-before, kept-pooled)
				}
				return ""
			})
		})
	}
	for _, n := range []int64{1, 4096, 65536, schemas.MaxAlignment} {
		add(schemas.ActionAllocate, fmt.Sprintf("is-aligned-to-%d", n), func() {
			c.grant(c.device, 5000)
			m := c.maps(c.grant(c.device, 10_000, "alignment", n), data.ReadWrite)
			if off := m.Segments[0].Offset; off%n != 0 {
				fail("the offset is %d", off)
			}
		})
	}
	add(schemas.ActionAllocate, "a-reservation-is-counted-and-has-no-handle", func() {
		before := num(c.memory(c.device), "reserved_memory")
		g := c.grant(c.device, 10*mib, "class", "reservation")
		want(g, "handle", nil)
		want(c.memory(c.device), "reserved_memory", before+10*mib)
		c.ask(schemas.ActionGetHandle, object{"allocation_id": text(g, "allocation_id")}).expect(schemas.CodeInvalidRequest)
	})
	add(schemas.ActionAllocate, "state-is-persistent", func() {
		want(c.grant(c.device, mib, "class", "state"), "allocation.class", "state", "allocation.persistent", true)
	})
	add(schemas.ActionAllocate, "dry_run-says-granted", func() {
		before := c.account()
		want(c.do(schemas.ActionAllocate, object{"device_id": c.device, "size_bytes": mib, "dry_run": true}), "plan.outcome", "granted")
		c.same(before)
	})
	add(schemas.ActionAllocate, "too-much-says-the-shortfall", func() {
		total := num(c.memory(c.device), "total_memory")
		got := c.ask(schemas.ActionAllocate, object{"device_id": c.device, "size_bytes": total + 64*mib}).expect(schemas.CodeOutOfMemory)
		if d := got.details; num(d, "required_bytes") < total+64*mib || num(d, "shortfall_bytes") < 64*mib || d["holders"] == nil || d["largest_grantable_bytes"] == nil {
			fail("details %v", d)
		}
	})
	add(schemas.ActionDeallocate, "frees-what-was-granted", func() {
		before := c.account()
		g := c.grant(c.device, 8*mib)
		want(c.release(g), "freed_bytes", num(g, "allocation.granted_bytes"), "confirmed", true, "zombie_bytes", 0, "success", true)
		c.same(before)
		c.ask(schemas.ActionGetAllocation, object{"allocation_id": text(g, "allocation_id")}).expect(schemas.CodeAllocationNotFound)
	})
	add(schemas.ActionDeallocate, "twice → ALLOCATION_NOT_FOUND", func() {
		g := c.grant(c.device, mib)
		c.release(g)
		c.ask(schemas.ActionDeallocate, object{"allocation_id": text(g, "allocation_id")}).expect(schemas.CodeAllocationNotFound)
	})
	add(schemas.ActionDeallocate, "while-a-second-process-maps-it → ALLOCATION_IN_USE", func() {
		g := c.grant(c.device, mib)
		id := text(g, "allocation_id")
		if err := c.second.View(text(g, "handle.claim")); err != nil {
			fail("the second process: %v", err)
		}
		got := c.ask(schemas.ActionDeallocate, object{"allocation_id": id})
		if err := c.second.Unmap(id); err != nil {
			fail("the second process: %v", err)
		}
		got.expect(schemas.CodeAllocationInUse)
		c.release(g)
	})
	add(schemas.ActionDeallocate, "makes-its-claim-stale", func() {
		g := c.grant(c.device, mib)
		c.release(g)
		if _, err := c.session.Map(c.ctx, text(g, "handle.claim"), data.ReadOnly); err == nil {
			fail("the claim of what was released still opens it")
		}
	})
	add(schemas.ActionGetHandle, "gives-a-claim-that-works-once", func() {
		g := c.grant(c.device, mib)
		h := c.handle(text(g, "allocation_id"))
		if text(h, "handle.claim") == text(g, "handle.claim") {
			fail("the claim of before")
		}
		c.unmaps(c.maps(h, data.ReadOnly))
		if _, err := c.session.Map(c.ctx, text(h, "handle.claim"), data.ReadOnly); err == nil {
			fail("the claim works twice")
		}
	})
}

// leaseEffects are of renew, and of what ends by itself.
func (c caller) leaseEffects(add adder) {
	add(schemas.ActionRenew, "moves-the-lease's-end", func() {
		g := c.grant(c.device, mib, "lease_seconds", 100)
		r := c.do(schemas.ActionRenew, object{"allocation_ids": []any{text(g, "allocation_id")}, "lease_seconds": 1000})
		if was, is := text(g, "allocation.lease_expires_at"), text(r, "renewed.0.lease_expires_at"); was == "" || is <= was {
			fail("the lease ended at %q and ends at %q", was, is)
		}
		one := c.do(schemas.ActionGetAllocation, object{"allocation_id": text(g, "allocation_id")})
		// The end is kept as a monotonic time: as a time of day it may differ by less than any
		// client sees.
		if apart := timeOf(one, "allocation.lease_expires_at").Sub(timeOf(r, "renewed.0.lease_expires_at")).Abs(); apart > time.Millisecond {
			fail("renew and get_allocation are %v apart", apart)
		}
	})
	add(schemas.ActionAllocate, "a-lease-of-a-second-expires", func() {
		g := c.grant(c.device, mib, "lease_seconds", 1)
		id := text(g, "allocation_id")
		c.await(schemas.EventExpired, "events.allocation", of("allocation_id", id))
		c.ask(schemas.ActionGetAllocation, object{"allocation_id": id}).expect(schemas.CodeAllocationNotFound)
	})
	add(schemas.ActionAllocate, "a-grant-that-nobody-hears-of-is-undone", func() {
		before := c.account()
		id := c.nextID()
		m := object{"request_id": id, "data": object{"device_id": c.device, "size_bytes": mib}}
		if err := c.nc.PublishRequest(schemas.CommandSubject(schemas.ActionAllocate), c.nc.NewInbox(), jsonOf(m)); err != nil {
			fail("%v", err)
		}
		e := c.await(schemas.EventAllocated, "events.allocation", of("request_id", id))
		c.eventually(func() string {
			if c.account() == before {
				return ""
			}
			return "the grant " + text(e.data, "allocation_id") + " is still there"
		})
	})
}

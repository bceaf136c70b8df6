package conform

import (
	"fmt"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// slowEffects are of work that is stopped on its way, on a device that is slow enough to be
// caught at it. Afterwards every byte is as it was, and nothing is left.
func (c caller) slowEffects(add adder) {
	if c.own == nil {
		return
	}
	const size = 8*mib + 4096
	// empty wants the slow device to be as empty as before, by its figures and by the kernel's.
	empty := func(c caller, before, blocks int64) {
		c.eventually(func() string {
			m := c.memory(c.other)
			if used := num(m, "used_memory"); used != before {
				return fmt.Sprintf("%d bytes of %s are used, before %d", used, c.other, before)
			}
			if now := c.blocks(); now > blocks+4*mib {
				return fmt.Sprintf("the kernel has %d bytes more than before", now-blocks)
			}
			return ""
		})
	}
	// begun starts a transfer to the slow device and waits until bytes flow.
	begun := func(c caller, source string, move bool) string {
		in := object{"allocation_id": source, "target_device_id": c.other, "move": move, "wait_ms": 0}
		op := text(c.ask(schemas.ActionTransfer, in).expect("").data, "operation_id")
		c.await(schemas.EventStarted, "events.transfer", of("operation_id", op))
		return op
	}
	for _, how := range []struct {
		name string
		move bool
		by   schemas.Action
		id   string
	}{
		{"a-running-transfer", false, schemas.ActionCancelTransfer, "transfer_id"},
		{"a-running-move", true, schemas.ActionCancelTransfer, "transfer_id"},
		{"a-running-transfer-as-an-operation", false, schemas.ActionCancelOperation, "operation_id"},
	} {
		add(how.by, how.name+"-leaves-the-bytes-and-nothing-else", func() {
			c := c.slow()
			id, holds := c.filled(c.device, seed, size)
			used, blocks := num(c.memory(c.other), "used_memory"), c.blocks()
			op := begun(c, id, how.move)
			want(c.do(how.by, object{how.id: op, "wait_ms": waitFor}), "operation.status", "cancelled", "operation.error.error_code", "CANCELLED")
			c.await(schemas.EventCancelled, "events.transfer", of("operation_id", op))
			want(c.do(schemas.ActionGetTransfer, object{"transfer_id": op}), "operation.status", "cancelled")
			c.secondSees(id, holds)
			want(c.do(schemas.ActionGetAllocation, object{"allocation_id": id}), "allocation.status", "active", "allocation.device_id", c.device)
			empty(c, used, blocks)
			want(c.do(schemas.ActionGetAllocations, object{"device_id": c.other}), "allocations", []any{})
		})
	}
	add(schemas.ActionTransfer, "a-grant-on-its-way-cannot-be-mapped → ALLOCATION_IN_USE", func() {
		c := c.slow()
		id, holds := c.filled(c.device, seed, size)
		op := begun(c, id, true)
		if got := c.ask(schemas.ActionGetHandle, object{"allocation_id": id}); got.ok {
			if m, err := c.session.Map(c.ctx, text(got.data, "handle.claim"), data.ReadWrite); err == nil {
				c.mappings = append(c.mappings, m)
				fail("it is mapped while it is moved")
			}
		}
		c.do(schemas.ActionCancelTransfer, object{"transfer_id": op, "wait_ms": waitFor})
		c.secondSees(id, holds)
	})
	add(schemas.ActionDeallocate, "of-what-is-being-transferred-ends-both", func() {
		c := c.slow()
		id, _ := c.filled(c.device, seed, size)
		used, blocks := num(c.memory(c.other), "used_memory"), c.blocks()
		op := begun(c, id, false)
		want(c.do(schemas.ActionDeallocate, object{"allocation_id": id, "wait_ms": waitFor}), "confirmed", true)
		r := c.do(schemas.ActionGetOperation, object{"operation_id": op, "wait_ms": waitFor})
		if st := text(r, "operation.status"); st != "failed" && st != "cancelled" {
			fail("the transfer of what was released is %v", r)
		}
		empty(c, used, blocks)
	})
	add(schemas.ActionCancelOperation, "a-running-load-leaves-nothing", func() {
		c := c.slow()
		used, blocks := num(c.memory(c.other), "used_memory"), c.blocks()
		in := object{"name": modelName, "path": c.modelPath, "device_id": c.other, "wait_ms": 0}
		op := text(c.ask(schemas.ActionLoadModel, in).expect("").data, "operation_id")
		want(c.do(schemas.ActionCancelOperation, object{"operation_id": op, "wait_ms": waitFor}), "operation.status", "cancelled")
		empty(c, used, blocks)
		want(c.memory(c.other), "model_memory", 0)
		in["wait_ms"] = waitFor
		m := c.maps(c.do(schemas.ActionLoadModel, in), data.ReadOnly) // and nothing stands in the way of another
		if err := c.model.Check(0, 0, m.Tensor(c.model.Tensors[0].Name)); err != nil {
			fail("%v", err)
		}
	})
}

// lineEffects are of the line in which requests wait: order, deadline, cancel.
func (c caller) lineEffects(add adder) {
	ask := func(priority int, more ...any) (operation string) {
		in := object{"device_id": c.device, "size_bytes": 4 * mib, "wait_ms": 0, "timeout_seconds": 60, "priority": priority}
		for i := 0; i < len(more); i += 2 {
			in[more[i].(string)] = more[i+1]
		}
		got := c.ask(schemas.ActionAllocate, in).expect("")
		want(got.data, "status", "queued")
		return text(got.data, "operation_id")
	}
	cancel := func(op string) { c.do(schemas.ActionCancelOperation, object{"operation_id": op}) }
	add(schemas.ActionAllocate, "past-its-deadline-in-the-line → OUT_OF_MEMORY with who holds it", func() {
		before := c.account()
		all, name := c.rest(c.device), c.nextID()
		in := object{"device_id": c.device, "size_bytes": 4 * mib, "wait_ms": 0, "timeout_seconds": 1}
		op := text(c.ask(schemas.ActionAllocate, in, id(name)).expect("").data, "operation_id")
		r := c.do(schemas.ActionGetOperation, object{"operation_id": op, "wait_ms": waitFor})
		want(r, "operation.status", "failed", "operation.error.error_code", "OUT_OF_MEMORY", "operation.error.status_code", 503)
		e := c.await(schemas.EventRefused, "events.allocation", of("request_id", name))
		want(e.data, "error_code", "OUT_OF_MEMORY", "size_bytes", 4*mib)
		if text(e.data, "reason") == "" {
			fail("%v", e.data)
		}
		want(c.do(schemas.ActionGetQueue, object{"device_id": c.device}), "waiting", []any{})
		c.release(all)
		c.same(before)
	})
	add(schemas.ActionGetQueue, "higher-priority-comes-first-and-positions-follow-a-cancel", func() {
		all := c.rest(c.device)
		low, high, last := ask(0), ask(5), ask(0)
		order := func(ops ...string) {
			q := list(c.do(schemas.ActionGetQueue, object{"device_id": c.device}), "waiting")
			if len(q) != len(ops) {
				fail("%d wait, not %d", len(q), len(ops))
			}
			for i, op := range ops {
				want(q[i], "operation_id", op, "position", i+1)
			}
		}
		order(high, low, last)
		cancel(low)
		order(high, last)
		c.release(all)
		for _, op := range []string{high, last} {
			want(c.do(schemas.ActionGetOperation, object{"operation_id": op, "wait_ms": waitFor}), "operation.status", "completed")
		}
	})
	add(schemas.ActionCancelOperation, "by-request_id-frees-nothing-and-keeps-nothing", func() {
		all, name := c.rest(c.device), c.nextID()
		before := c.account()
		want(c.ask(schemas.ActionAllocate, object{"device_id": c.device, "size_bytes": 4 * mib, "wait_ms": 0}, id(name)).expect("").data, "status", "queued")
		want(c.do(schemas.ActionCancelOperation, object{"request_id": name}), "operation.status", "cancelled")
		c.same(before)
		c.release(all)
	})
	add(schemas.ActionAllocate, "within-its-wait-is-answered-when-room-comes", func() {
		all := c.rest(c.device)
		answered := make(chan answer, 1)
		why := make(chan string, 1)
		name := c.nextID()
		go func() {
			// A failed check unwinds its own goroutine only.
			var w string
			defer func() { why <- w }()
			defer recovered(&w)
			answered <- c.ask(schemas.ActionAllocate, object{"device_id": c.device, "size_bytes": 4 * mib, "wait_ms": waitFor, "timeout_seconds": 60}, id(name))
		}()
		c.await(schemas.EventQueued, "events.allocation", of("request_id", name))
		c.release(all)
		if w := <-why; w != "" {
			fail("%s", w)
		}
		got := (<-answered).expect("")
		want(got.data, "allocation.status", "active", "status", "completed")
	})
}

package conform

import (
	"bytes"
	"fmt"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// filled is a grant that holds the pattern of a seed, mapped by nobody any more.
func (c caller) filled(device string, seed uint64, size int64) (id string, holds []byte) {
	g := c.grant(device, size)
	m := c.maps(g, data.ReadWrite)
	fill(m, seed)
	c.unmaps(m)
	return text(g, "allocation_id"), pattern(seed, size)
}

// scattered are grants that lie alone in their segments: what lay between them is released.
func (c caller) scattered() map[string][]byte {
	kept, between := map[string][]byte{}, []string{}
	for i := range 64 {
		id, holds := c.filled(c.device, seed+uint64(i), 290_000)
		if i%16 == 0 {
			kept[id] = holds
			continue
		}
		between = append(between, id)
	}
	for _, id := range between {
		c.release(object{"allocation_id": id})
	}
	return kept
}

// byteEffects are of what moves or changes bytes: clear, copy, transfer and defragment, each
// looked at by a second process.
func (c caller) byteEffects(add adder) {
	add(schemas.ActionAllocate, "a-second-process-writes-it", func() {
		g := c.grant(c.device, 2*mib)
		id := text(g, "allocation_id")
		err := c.second.Map(text(g, "handle.claim"), 1)
		if err == nil {
			err = c.second.Fill(id, seed)
		}
		if uerr := c.second.Unmap(id); err == nil {
			err = uerr
		}
		if err != nil {
			fail("the second process: %v", err)
		}
		m := c.maps(c.handle(id), data.ReadOnly)
		if got := m.Segments[0].Bytes; !bytes.Equal(got, pattern(seed, 2*mib)[:len(got)]) {
			fail("what the second process wrote is not there")
		}
	})
	add(schemas.ActionClear, "fills-a-range-and-no-more", func() {
		id, holds := c.filled(c.device, seed, 2*mib)
		want(c.do(schemas.ActionClear, object{"allocation_id": id, "offset": 4095, "size_bytes": 70_000, "fill_value": 171}), "cleared_bytes", 70_000)
		copy(holds[4095:], bytes.Repeat([]byte{171}, 70_000))
		c.secondSees(id, holds)
	})
	add(schemas.ActionClear, "fills-all-with-zeros", func() {
		id, _ := c.filled(c.device, seed, mib)
		want(c.do(schemas.ActionClear, object{"allocation_id": id}), "cleared_bytes", mib)
		c.secondSees(id, make([]byte, mib))
	})
	add(schemas.ActionClear, "beyond-the-grant → INVALID_REQUEST", func() {
		id, holds := c.filled(c.device, seed, mib)
		c.ask(schemas.ActionClear, object{"allocation_id": id, "offset": 1, "size_bytes": mib}).expect(schemas.CodeInvalidRequest).names("size_bytes", "offset")
		c.secondSees(id, holds)
	})
	add(schemas.ActionClear, "a-device-without-confirm → INVALID_REQUEST", func() {
		c.ask(schemas.ActionClear, object{"device_id": c.device}).expect(schemas.CodeInvalidRequest).names("confirm")
	})
	if c.own != nil {
		add(schemas.ActionClear, "a-device-releases-everything", func() {
			g := c.grant(c.device, mib, "class", "state")
			c.do(schemas.ActionClear, object{"device_id": c.device, "confirm": true})
			c.ask(schemas.ActionGetAllocation, object{"allocation_id": text(g, "allocation_id")}).expect(schemas.CodeAllocationNotFound)
			want(c.memory(c.device), "used_memory", 0)
		})
	}
	add(schemas.ActionCopy, "copies-a-range-and-no-more", func() {
		from, source := c.filled(c.device, seed, 2*mib)
		to, target := c.filled(c.device, seed+1, mib)
		in := object{"source_allocation_id": from, "target_allocation_id": to, "source_offset": 4000, "target_offset": 1, "size_bytes": 300_000}
		want(c.do(schemas.ActionCopy, in), "copied_bytes", 300_000)
		copy(target[1:], source[4000:304_000])
		c.secondSees(to, target)
		c.secondSees(from, source)
	})
	for _, bad := range []struct {
		what string
		more object
	}{
		{"beyond-the-source", object{"source_offset": mib, "size_bytes": 1}},
		{"beyond-the-target", object{"target_offset": mib - 1, "size_bytes": 2}},
	} {
		add(schemas.ActionCopy, bad.what+" → INVALID_TRANSFER_PARAMS", func() {
			from, _ := c.filled(c.device, seed, mib)
			to, holds := c.filled(c.device, seed+1, mib)
			in := object{"source_allocation_id": from, "target_allocation_id": to}
			for k, v := range bad.more {
				in[k] = v
			}
			c.ask(schemas.ActionCopy, in).expect(schemas.CodeInvalidTransferParams)
			c.secondSees(to, holds)
		})
	}
	add(schemas.ActionCopy, "onto-itself → INVALID_TRANSFER_PARAMS", func() {
		id, holds := c.filled(c.device, seed, mib)
		in := object{"source_allocation_id": id, "target_allocation_id": id, "target_offset": 1000, "size_bytes": 1001}
		c.ask(schemas.ActionCopy, in).expect(schemas.CodeInvalidTransferParams)
		c.secondSees(id, holds)
	})
	add(schemas.ActionDefragment, "keeps-every-byte", func() {
		kept := c.scattered()
		trim := object{"device_id": c.device, "optimization_type": "trim"}
		c.do(schemas.ActionOptimize, trim)
		blocks := c.blocks()
		r := c.do(schemas.ActionDefragment, object{"device_id": c.device, "strategy": "full"})
		if num(r, "after.segments") >= num(r, "before.segments") || num(r, "moved_bytes") <= 0 || num(r, "released_bytes") <= 0 {
			fail("%v", r)
		}
		c.do(schemas.ActionOptimize, trim) // what was released may have been kept warm
		c.eventually(func() string {
			if fell := blocks - c.blocks(); fell < num(r, "released_bytes")/2 {
				return fmt.Sprintf("%d bytes were released, and the kernel's blocks fell by %d", num(r, "released_bytes"), fell)
			}
			return ""
		})
		for id, holds := range kept {
			c.secondSees(id, holds)
		}
	})
	if c.other != "" {
		c.transferEffects(add)
	}
}

// transferEffects are of transfers between two devices.
func (c caller) transferEffects(add adder) {
	const size = 3*mib + 17
	transfer := func(id string, more ...any) object {
		in := object{"allocation_id": id, "target_device_id": c.other, "wait_ms": waitFor}
		for i := 0; i < len(more); i += 2 {
			in[more[i].(string)] = more[i+1]
		}
		return c.do(schemas.ActionTransfer, in)
	}
	add(schemas.ActionTransfer, "has-every-byte-there", func() {
		id, holds := c.filled(c.device, seed, size)
		r := transfer(id)
		want(r, "operation.status", "completed", "transfer_id", text(r, "operation.operation_id"))
		c.secondSees(text(r, "allocation_id"), holds)
		c.secondSees(id, holds)
		want(c.do(schemas.ActionGetAllocation, object{"allocation_id": text(r, "allocation_id")}), "allocation.device_id", c.other)
	})
	add(schemas.ActionTransfer, "move-releases-the-source", func() {
		id, holds := c.filled(c.device, seed, size)
		r := transfer(id, "move", true, "source_device_id", c.device)
		c.secondSees(text(r, "allocation_id"), holds)
		c.ask(schemas.ActionGetAllocation, object{"allocation_id": id}).expect(schemas.CodeAllocationNotFound)
	})
	add(schemas.ActionTransfer, "is-published", func() {
		id, _ := c.filled(c.device, seed, mib)
		r := transfer(id)
		for _, kind := range []schemas.EventKind{schemas.EventStarted, schemas.EventCompleted} {
			c.await(kind, "events.transfer", of("operation_id", text(r, "transfer_id")))
		}
	})
	add(schemas.ActionTransfer, "to-where-it-is → INVALID_TRANSFER_PARAMS", func() {
		id, _ := c.filled(c.device, seed, mib)
		c.ask(schemas.ActionTransfer, object{"allocation_id": id, "target_device_id": c.device}).expect(schemas.CodeInvalidTransferParams)
	})
	add(schemas.ActionTransfer, "from-another-device → INVALID_TRANSFER_PARAMS", func() {
		id, _ := c.filled(c.device, seed, mib)
		in := object{"allocation_id": id, "target_device_id": c.other, "source_device_id": c.other}
		c.ask(schemas.ActionTransfer, in).expect(schemas.CodeInvalidTransferParams)
	})
	add(schemas.ActionTransfer, "to-an-unknown-device → INVALID_DEVICE", func() {
		id, _ := c.filled(c.device, seed, mib)
		c.ask(schemas.ActionTransfer, object{"allocation_id": id, "target_device_id": nowhere}).expect(schemas.CodeInvalidDevice)
	})
	add(schemas.ActionGetTransfer, "tells-how-it-went", func() {
		id, _ := c.filled(c.device, seed, mib)
		r := transfer(id)
		op := c.do(schemas.ActionGetTransfer, object{"transfer_id": text(r, "transfer_id")})
		want(op, "operation.action", "transfer", "operation.status", "completed", "operation.bytes_done", mib)
	})
	add(schemas.ActionCancelTransfer, "of-what-has-ended-changes-nothing", func() {
		id, holds := c.filled(c.device, seed, mib)
		r := transfer(id)
		want(c.do(schemas.ActionCancelTransfer, object{"transfer_id": text(r, "transfer_id")}), "operation.status", "completed")
		c.secondSees(text(r, "allocation_id"), holds)
	})
}

// roomEffects are of what makes room: optimize, model_optimize and cleanup; and of what
// looks back: analytics and optimization_recs.
func (c caller) roomEffects(add adder) {
	load := func(more ...any) {
		in := object{"name": modelName, "path": c.modelPath, "device_id": c.device, "wait_ms": waitFor}
		for i := 0; i < len(more); i += 2 {
			in[more[i].(string)] = more[i+1]
		}
		c.do(schemas.ActionLoadModel, in)
	}
	gone := func() { want(c.memory(c.device), "model_memory", 0) }
	add(schemas.ActionOptimize, "trim-gives-idle-memory-back", func() {
		c.release(c.grant(c.device, 8*mib))
		r := c.do(schemas.ActionOptimize, object{"device_id": c.device, "optimization_type": "trim"})
		want(r, "after.pooled_memory", 0, "freed_bytes", num(r, "before.pooled_memory"))
	})
	add(schemas.ActionAnalytics, "counts-a-grant", func() {
		c.grant(c.device, mib)
		c.eventually(func() string {
			if r := c.do(schemas.ActionAnalytics, object{"device_id": c.device, "window_seconds": 600}); num(r, "percentiles.grant.count") < 1 {
				return "no grant is counted"
			}
			return ""
		})
	})
	add(schemas.ActionAnalytics, "has-every-list", func() {
		r := c.do(schemas.ActionAnalytics, object{"device_id": c.device})
		for _, name := range []string{"series", "peaks", "top_holders", "leak_suspects", "gaps", "model_requests", "what_if"} {
			if _, ok := r[name].([]any); !ok {
				fail("%s is %v, not a list", name, r[name])
			}
		}
	})
	if c.own == nil || c.modelPath == "" {
		return // the rest would release what is not conform's
	}
	add(schemas.ActionOptimize, "models-go-to-the-target", func() {
		load()
		in := object{"device_id": c.device, "optimization_type": "models", "target_usage_percentage": 0, "wait_ms": waitFor}
		before := c.account()
		want(c.do(schemas.ActionOptimize, with(in, "dry_run", true)), "plan.outcome", "granted", "plan.evict.0.model", modelName)
		c.same(before)
		name := c.nextID()
		if r := c.do(schemas.ActionOptimize, in, id(name)); num(r, "freed_bytes") < modelBytes {
			fail("freed %v", r)
		}
		gone()
		c.await(schemas.EventCompleted, "events.optimization", of("request_id", name))
	})
	add(schemas.ActionAnalytics, "what-if-speaks-of-what-was-asked-for", func() {
		load()
		load()
		c.eventually(func() string {
			r := c.do(schemas.ActionAnalytics, object{"device_id": c.device})
			rows, _ := r["what_if"].([]any)
			if len(rows) < 2 || num(r, "model_requests.0.requests") < 2 || num(r, "model_requests.0.loads") < 1 {
				return fmt.Sprintf("seen %v, with other limits %v", r["model_requests"], rows)
			}
			for i := range rows {
				at := fmt.Sprintf("what_if.%d.", i)
				if num(r, at+"requests") != num(r, "model_requests.0.requests") || num(r, at+"delta_bytes") == 0 && num(r, at+"saved_seconds") != 0 {
					return fmt.Sprintf("row %v does not fit %v", rows[i], r["model_requests"])
				}
			}
			return ""
		})
	})
	add(schemas.ActionOptimize, "wait_for_completion-false → running", func() {
		r := c.ask(schemas.ActionOptimize, object{"device_id": c.device, "wait_for_completion": false}).expect("")
		want(r.data, "status", "running")
		want(c.do(schemas.ActionGetOperation, object{"operation_id": text(r.data, "operation_id"), "wait_ms": waitFor}), "operation.status", "completed")
	})
	add(schemas.ActionModelOptimize, "unloads-what-is-unread", func() {
		load()
		in := object{"device_id": c.device, "min_memory_to_free": mib, "wait_ms": waitFor}
		want(c.do(schemas.ActionModelOptimize, with(in, "exclude_models", []any{modelName})), "models_unloaded", []any{})
		r := c.do(schemas.ActionModelOptimize, in)
		want(r, "models_unloaded", []any{modelName}, "memory_freed", num(r, "memory_freed_bytes"), "optimization_triggered", true, "optimization_strategy", "cost")
		gone()
	})
	for _, s := range schemas.EvictionStrategy("").Names() {
		add(schemas.ActionModelOptimize, "by-"+s, func() {
			load()
			want(c.do(schemas.ActionModelOptimize, object{"device_id": c.device, "min_memory_to_free": 1, "strategy": s, "wait_ms": waitFor}),
				"models_unloaded", []any{modelName}, "optimization_strategy", s)
		})
	}
	add(schemas.ActionModelOptimize, "leaves-what-is-pinned", func() {
		load("pinned", true)
		want(c.do(schemas.ActionModelOptimize, object{"device_id": c.device, "min_memory_to_free": 1, "wait_ms": waitFor}), "models_unloaded", []any{})
	})
	add(schemas.ActionCleanup, "leaves-what-is-persistent", func() {
		load()
		goes, stays := c.grant(c.device, mib), c.grant(c.device, mib, "class", "state")
		r := c.do(schemas.ActionCleanup, object{"confirm": true, "wait_ms": waitFor})
		want(r, "models_unloaded", []any{modelName})
		c.ask(schemas.ActionGetAllocation, object{"allocation_id": text(goes, "allocation_id")}).expect(schemas.CodeAllocationNotFound)
		c.ask(schemas.ActionGetAllocation, object{"allocation_id": text(stays, "allocation_id")}).expect("")
		gone()
	})
	add(schemas.ActionOptimize, "defragment-releases-segments-and-keeps-every-byte", func() {
		kept := c.scattered()
		c.do(schemas.ActionOptimize, object{"device_id": c.device, "optimization_type": "trim"})
		r := c.do(schemas.ActionOptimize, object{"device_id": c.device, "optimization_type": "defragment", "target_usage_percentage": 0, "force": true, "wait_ms": waitFor})
		if num(r, "freed_bytes") <= 0 || len(list(r, "steps")) == 0 {
			fail("%v", r)
		}
		for id, holds := range kept {
			c.secondSees(id, holds)
		}
	})
	add(schemas.ActionOptimize, "all-releases-models-and-idle-memory-and-keeps-every-byte", func() {
		kept := c.scattered()
		load()
		r := c.do(schemas.ActionOptimize, object{"device_id": c.device, "optimization_type": "all", "target_usage_percentage": 0, "force": true, "wait_ms": waitFor})
		if num(r, "freed_bytes") < modelBytes {
			fail("%v", r)
		}
		gone()
		for id, holds := range kept {
			c.secondSees(id, holds)
		}
	})
	if c.ram != "" && c.ram != c.device {
		add(schemas.ActionUnloadModel, "to-ram-keeps-its-bytes-there-for-the-next-load", func() {
			load()
			r := c.do(schemas.ActionUnloadModel, object{"name": modelName, "device_id": c.device, "to": "ram", "wait_ms": waitFor})
			want(r, "unloaded", true, "confirmed", true)
			gone()
			want(c.do(schemas.ActionGetModelInfo, object{"name": modelName}), "models.0.residency.0.tier", "ram", "models.0.residency.0.device_id", c.ram)
			again := c.do(schemas.ActionLoadModel, object{"name": modelName, "device_id": c.device, "wait_ms": waitFor})
			want(again, "source_tier", "ram", "tier", "vram")
			m := c.maps(again, data.ReadOnly)
			for i, t := range c.model.Tensors {
				if err := c.model.Check(i, 0, m.Tensor(t.Name)); err != nil {
					fail("%v", err)
				}
			}
		})
	}
	add(schemas.ActionOptimizationRecs, "are-ready-to-send", func() {
		load()
		for _, r := range list(c.do(schemas.ActionOptimizationRecs, object{"device_id": c.device}), "recommendations") {
			if text(r, "kind") == "" || text(r, "reason") == "" || text(r, "command.action") == "" || at(r, "command.data") == nil {
				fail("%v", r)
			}
		}
	})
}

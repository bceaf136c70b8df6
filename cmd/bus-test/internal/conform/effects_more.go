package conform

import (
	"fmt"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// waitFor is how long a command of ours may take that has to wait for something.
const waitFor = 15_000

// jsonOf is a request in JSON, where the format is not what is tried.
func jsonOf(v object) []byte {
	b, err := formats[0].encode(v)
	if err != nil {
		fail("%v", err)
	}
	return b
}

// rest takes all that a device has left, so that the next request must wait.
func (c caller) rest(device string) object {
	free := num(c.memory(device), "largest_grantable_bytes")
	return c.grant(device, free)
}

// waiting asks for memory that is not there, and returns the operation that waits.
func (c caller) waiting(more ...any) (operation string, all object) {
	all = c.rest(c.device)
	in := object{"device_id": c.device, "size_bytes": 4 * mib, "wait_ms": 0, "timeout_seconds": 60}
	for i := 0; i < len(more); i += 2 {
		in[more[i].(string)] = more[i+1]
	}
	got := c.ask(schemas.ActionAllocate, in).expect("")
	want(got.data, "status", "queued", "position", 1)
	return text(got.data, "operation_id"), all
}

// queueEffects are of what waits: get_queue, get_operation and cancel_operation.
func (c caller) queueEffects(add adder) {
	cancelled := func(operation string) {
		c.do(schemas.ActionCancelOperation, object{"operation_id": operation})
	}
	add(schemas.ActionGetQueue, "shows-who-waits", func() {
		op, _ := c.waiting("priority", 3)
		q := c.do(schemas.ActionGetQueue, object{"device_id": c.device})
		cancelled(op)
		want(q, "waiting.0.operation_id", op, "waiting.0.priority", 3, "waiting.0.position", 1, "waiting.0.size_bytes", 4*mib, "waiting.1", nil)
	})
	add(schemas.ActionGetOperation, "has-the-result-of-what-waited", func() {
		op, all := c.waiting()
		c.release(all)
		got := c.do(schemas.ActionGetOperation, object{"operation_id": op, "wait_ms": waitFor})
		want(got, "operation.status", "completed", "operation.action", "allocate", "operation.result.device_id", c.device)
		r, _ := at(got, "operation.result").(object)
		if text(r, "handle.claim") == "" {
			fail("no claim in %v", r)
		}
		c.maps(r, data.ReadOnly)
	})
	add(schemas.ActionGetOperation, "by-request_id", func() {
		all, name := c.rest(c.device), c.nextID()
		p := c.ask(schemas.ActionAllocate, object{"device_id": c.device, "size_bytes": mib, "wait_ms": 0}, id(name)).expect("")
		want(c.do(schemas.ActionGetOperation, object{"request_id": name}), "operation.status", "queued", "operation.operation_id", text(p.data, "operation_id"))
		c.release(all)
		want(c.do(schemas.ActionGetOperation, object{"request_id": name, "wait_ms": waitFor}), "operation.status", "completed")
	})
	add(schemas.ActionCancelOperation, "ends-what-waits", func() {
		op, _ := c.waiting()
		want(c.do(schemas.ActionCancelOperation, object{"operation_id": op}), "operation.status", "cancelled")
		want(c.do(schemas.ActionGetQueue, object{"device_id": c.device}), "waiting", []any{})
		want(c.do(schemas.ActionGetOperation, object{"operation_id": op}), "operation.status", "cancelled", "operation.error.error_code", "CANCELLED")
	})
	add(schemas.ActionAllocate, "timeout_seconds-0 → OUT_OF_MEMORY, not queued", func() {
		c.rest(c.device)
		c.ask(schemas.ActionAllocate, object{"device_id": c.device, "size_bytes": 4 * mib, "timeout_seconds": 0}).expect(schemas.CodeOutOfMemory)
		want(c.do(schemas.ActionGetQueue, object{"device_id": c.device}), "waiting", []any{})
	})
	add(schemas.ActionAllocate, "dry_run-says-queued", func() {
		c.rest(c.device)
		want(c.do(schemas.ActionAllocate, object{"device_id": c.device, "size_bytes": 4 * mib, "dry_run": true}), "plan.outcome", "queued")
	})
}

// queryEffects are that queries agree with each other.
func (c caller) queryEffects(add adder) {
	add(schemas.ActionListDevices, "names-what-get_status-has", func() {
		devices := list(c.do(schemas.ActionListDevices, object{}), "devices")
		states := list(c.do(schemas.ActionGetStatus, object{}), "devices")
		if len(devices) != len(states) {
			fail("%d devices, %d states", len(devices), len(states))
		}
		for i := range devices {
			want(states[i], "device_id", text(devices[i], "device_id"))
		}
	})
	add(schemas.ActionGetStatus, "all-is-the-sum", func() {
		c.grant(c.device, 3*mib)
		all := c.do(schemas.ActionGetStatus, object{})
		want(all, "device_id", "all")
		for _, path := range []string{"memory_info.total_memory", "memory_info.used_memory", "usage_stats.allocation_count", "model_memory.memory_usage_bytes"} {
			sum := int64(0)
			for _, d := range list(all, "devices") {
				sum += num(d, path)
			}
			want(all, path, sum)
		}
	})
	for _, f := range []struct{ field, path string }{{"include_allocations", "allocations.0"}, {"include_usage_stats", "usage_stats"}, {"include_fragmentation", "fragmentation"}} {
		add(schemas.ActionGetStatus, f.field, func() {
			c.grant(c.device, mib)
			for _, yes := range []bool{true, false} {
				got := c.do(schemas.ActionGetStatus, object{"device_id": c.device, f.field: yes})
				if there := at(got, f.path) != nil; there != yes {
					fail("%s=%v: %s is %v", f.field, yes, f.path, at(got, f.path))
				}
			}
		})
	}
	add(schemas.ActionGetUsage, "adds-up", func() {
		c.grant(c.device, 3*mib)
		c.grant(c.device, 4*mib, "class", "reservation")
		d := c.do(schemas.ActionGetUsage, object{"device_id": c.device})
		sum := int64(0)
		for _, s := range list(d, "devices.0.by_class") {
			sum += num(s, "count")
		}
		want(d, "devices.0.allocation_count", sum, "devices.1", nil)
	})
	add(schemas.ActionGetAllocations, "in-pages", func() {
		for range 3 {
			c.grant(c.device, mib, "purpose", "pages")
		}
		seen := map[string]bool{}
		in := object{"purpose": "pages", "limit": 2}
		for range 3 {
			page := c.do(schemas.ActionGetAllocations, in)
			for _, a := range list(page, "allocations") {
				seen[text(a, "allocation_id")] = true
			}
			if in["cursor"] = page["next_cursor"]; page["next_cursor"] == nil {
				break
			}
		}
		if len(seen) != 3 {
			fail("%d grants on all pages", len(seen))
		}
	})
	for field, v := range map[string]any{"class": "state", "status": "active", "purpose": "one of its kind"} {
		add(schemas.ActionGetAllocations, "by-"+field, func() {
			g := c.grant(c.device, mib, "class", "state", "purpose", "one of its kind")
			c.grant(c.device, mib)
			found := false
			for _, a := range list(c.do(schemas.ActionGetAllocations, object{"device_id": c.device, field: v}), "allocations") {
				if at(a, field) != v {
					fail("%s %v in the list", field, at(a, field))
				}
				found = found || text(a, "allocation_id") == text(g, "allocation_id")
			}
			if !found {
				fail("the grant is not in the list")
			}
		})
	}
	add(schemas.ActionGetPressure, "is-what-was-published", func() {
		calm := func() string {
			return differs(text(c.do(schemas.ActionGetPressure, object{"device_id": c.device}), "pressure.pressure_level"), "low")
		}
		c.eventually(calm)
		total := num(c.memory(c.device), "total_memory")
		before := num(c.do(schemas.ActionGetPressure, object{"device_id": c.device}), "pressure.sequence")
		g := c.grant(c.device, total*3/4)
		now := c.do(schemas.ActionGetPressure, object{"device_id": c.device})
		if level := text(now, "pressure.pressure_level"); level != "moderate" && level != "high" || num(now, "pressure.sequence") <= before {
			fail("the pressure with three quarters in use: %v", now["pressure"])
		}
		seq := num(now, "pressure.sequence")
		e := c.awaitSequence(seq)
		want(e.data, "pressure_level", text(now, "pressure.pressure_level"), "device_id", c.device)
		c.release(g)
		c.eventually(calm)
	})
}

// awaitSequence is the pressure change of a sequence.
func (c caller) awaitSequence(seq int64) event {
	return c.await(schemas.EventPressureChanged, "events.pressure."+c.node+"."+schemas.DeviceToken(c.device), func(d object) bool {
		return num(d, "sequence") == seq
	})
}

func differs(got, want string) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("%q, not %q", got, want)
}

// limitEffects are of set_limits.
func (c caller) limitEffects(add adder) {
	add(schemas.ActionSetLimits, "are-in-force", func() {
		was := c.do(schemas.ActionSetLimits, object{"device_id": c.device})
		total := num(c.memory(c.device), "total_memory")
		defer func() {
			c.do(schemas.ActionSetLimits, object{"device_id": c.device, "limit_bytes": total, "thresholds": was["thresholds"]})
		}()
		now := c.do(schemas.ActionSetLimits, object{"device_id": c.device, "limit_bytes": total / 2, "thresholds": object{"moderate": 50, "high": object{"enter": 60, "leave": 55}}})
		want(now, "limit_bytes", total/2, "thresholds.moderate.enter", 50, "thresholds.moderate.leave", 45, "thresholds.high.leave", 55)
		want(c.memory(c.device), "total_memory", total/2)
		c.ask(schemas.ActionAllocate, object{"device_id": c.device, "size_bytes": total/2 + mib}).expect(schemas.CodeOutOfMemory)
	})
	add(schemas.ActionSetLimits, "thresholds-that-fall → INVALID_REQUEST", func() {
		in := object{"device_id": c.device, "thresholds": object{"moderate": 90, "high": 80}}
		c.ask(schemas.ActionSetLimits, in).expect(schemas.CodeInvalidRequest).names("thresholds")
	})
}

// modelEffects are of everything that models have.
func (c caller) modelEffects(add adder) {
	load := func(more ...any) object {
		in := object{"name": modelName, "path": c.modelPath, "device_id": c.device, "wait_ms": waitFor}
		for i := 0; i < len(more); i += 2 {
			in[more[i].(string)] = more[i+1]
		}
		return c.do(schemas.ActionLoadModel, in)
	}
	add(schemas.ActionLoadModel, "has-the-file's-bytes", func() {
		m := c.maps(load(), data.ReadOnly)
		if len(m.Tensors) != len(c.model.Tensors) {
			fail("%d tensors, not %d", len(m.Tensors), len(c.model.Tensors))
		}
		for i, t := range c.model.Tensors {
			bytes := m.Tensor(t.Name)
			if bytes == nil {
				fail("no tensor %s", t.Name)
			}
			if err := c.model.Check(i, 0, bytes); err != nil {
				fail("%v", err)
			}
		}
	})
	add(schemas.ActionLoadModel, "is-the-same-in-a-second-process", func() {
		first := c.maps(load(), data.ReadOnly)
		var bytes []byte
		for _, s := range first.Segments {
			bytes = append(bytes, s.Bytes...)
		}
		h := c.do(schemas.ActionGetHandle, object{"model_name": modelName, "device_id": c.device})
		if err := c.second.View(text(h, "handle.claim")); err != nil {
			fail("the second process: %v", err)
		}
		id := first.AllocationID
		c.secondSum(id, bytes)
	})
	add(schemas.ActionLoadModel, "twice-is-once", func() {
		one := load()
		used := num(c.memory(c.device), "model_memory")
		two := load()
		want(two, "allocation_ids", one["allocation_ids"], "model.loads", num(two, "model.loads"))
		want(c.memory(c.device), "model_memory", used)
	})
	add(schemas.ActionLoadModel, "verify-compares-it-with-its-file", func() {
		one := load()
		two := load("verify", true)
		want(two, "allocation_ids", one["allocation_ids"], "verified", true)
		if one["verified"] != nil {
			fail("verified although nobody asked")
		}
	})
	add(schemas.ActionLoadModel, "is-published", func() {
		name := c.nextID()
		c.do(schemas.ActionLoadModel, object{"name": modelName, "path": c.modelPath, "device_id": c.device, "wait_ms": waitFor}, id(name))
		e := c.await(schemas.EventModelLoaded, "events.model", of("request_id", name))
		want(e.data, "name", modelName, "device_id", c.device)
	})
	add(schemas.ActionGetModelInfo, "shows-tensors", func() {
		load()
		r := c.do(schemas.ActionGetModelInfo, object{"name": modelName, "include_tensors": true})
		want(r, "models.0.tensor_count", len(c.model.Tensors), "models.0.state", "sealed", "models.0.tensors.0.dtype", c.model.Tensors[0].DType)
		want(c.do(schemas.ActionGetModelInfo, object{"name": modelName}), "models.0.tensors", nil)
	})
	add(schemas.ActionModelStatus, "counts-it", func() {
		before := num(c.do(schemas.ActionModelStatus, object{"device_id": c.device}), "memory_usage_bytes")
		load()
		r := c.do(schemas.ActionModelStatus, object{"device_id": c.device})
		if used := num(r, "memory_usage_bytes"); used < before+modelBytes {
			fail("models take %d bytes, before %d", used, before)
		}
		want(r, "loaded_models."+modelName+".name", modelName)
	})
	add(schemas.ActionAcquireModel, "keeps-it", func() {
		load()
		r := c.do(schemas.ActionAcquireModel, object{"name": modelName, "device_id": c.device, "lease_seconds": 60})
		c.ask(schemas.ActionUnloadModel, object{"name": modelName}).expect(schemas.CodeModelInUse)
		c.do(schemas.ActionReleaseModel, object{"reference_id": text(r, "reference_id"), "name": modelName})
		want(c.do(schemas.ActionUnloadModel, object{"name": modelName}), "unloaded", true)
	})
	add(schemas.ActionRenew, "moves-a-reference's-end", func() {
		load()
		r := c.do(schemas.ActionAcquireModel, object{"name": modelName, "device_id": c.device, "lease_seconds": 60})
		now := c.do(schemas.ActionRenew, object{"reference_ids": []any{text(r, "reference_id")}, "lease_seconds": 600})
		if was, is := text(r, "lease_expires_at"), text(now, "renewed.0.lease_expires_at"); is <= was {
			fail("the reference ended at %q and ends at %q", was, is)
		}
		c.do(schemas.ActionReleaseModel, object{"reference_id": text(r, "reference_id")})
	})
	add(schemas.ActionReleaseModel, "twice → an error", func() {
		load()
		r := c.do(schemas.ActionAcquireModel, object{"name": modelName, "device_id": c.device, "lease_seconds": 60})
		in := object{"reference_id": text(r, "reference_id")}
		c.do(schemas.ActionReleaseModel, in)
		if got := c.ask(schemas.ActionReleaseModel, in); got.code != schemas.CodeModelNotFound && got.code != schemas.CodeStaleHandle {
			fail("answered %s", got)
		}
	})
	add(schemas.ActionUnloadModel, "frees-its-bytes", func() {
		before := num(c.memory(c.device), "model_memory")
		load()
		r := c.do(schemas.ActionUnloadModel, object{"name": modelName, "device_id": c.device})
		want(r, "unloaded", true, "confirmed", true, "zombie_bytes", 0, "models_unloaded.0", modelName)
		if num(r, "freed_bytes") < modelBytes {
			fail("freed %d bytes", num(r, "freed_bytes"))
		}
		want(c.memory(c.device), "model_memory", before)
	})
}

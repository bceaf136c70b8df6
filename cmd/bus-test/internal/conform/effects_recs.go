package conform

import (
	"fmt"
	"os"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// recEffects apply recommendations as they stand and look whether what was promised came:
// those that a node makes within seconds. What it says of hours of idleness is looked at
// with a clock of their own by the node's tests.
func (c caller) recEffects(add adder) {
	if c.own == nil || c.modelPath == "" {
		return
	}
	// recommended waits for a recommendation of a kind about the device.
	recommended := func(kind string) object {
		var found object
		c.eventually(func() string {
			r := c.do(schemas.ActionOptimizationRecs, object{"device_id": c.device})
			for _, x := range list(r, "recommendations") {
				if text(x, "kind") == kind {
					found = x.(object)
					return ""
				}
			}
			state := c.do(schemas.ActionGetStatus, object{"device_id": c.device, "include_allocations": false, "include_fragmentation": true})
			return fmt.Sprintf("%s is not among %v, with %v", kind, r["recommendations"], state["fragmentation"])
		})
		return found
	}
	// sent sends a recommendation's command as it stands.
	sent := func(r object) object {
		in, _ := at(r, "command.data").(object)
		return c.do(schemas.Action(text(r, "command.action")), in)
	}
	over := func(kind string) {
		for _, x := range list(c.do(schemas.ActionOptimizationRecs, object{"device_id": c.device}), "recommendations") {
			if text(x, "kind") == kind {
				fail("%s is recommended still: %v", kind, x)
			}
		}
	}
	add(schemas.ActionOptimizationRecs, "trim_pool-frees-what-it-promised", func() {
		g := c.grant(c.device, 64*mib)
		for _, s := range c.maps(g, data.ReadWrite).Segments { // simulated memory is the kernel's once it is touched
			for i := 0; i < len(s.Bytes); i += os.Getpagesize() {
				s.Bytes[i] = 1
			}
		}
		c.tidy()
		r := recommended("trim_pool")
		before := c.blocks()
		want(sent(r), "freed_bytes", num(r, "expected_bytes"), "after.pooled_memory", 0)
		over("trim_pool")
		if fell := before - c.blocks(); fell < 32*mib {
			fail("the kernel's blocks fell by %d", fell)
		}
	})
	add(schemas.ActionOptimizationRecs, "defragment-releases-what-it-promised-and-keeps-every-byte", func() {
		kept := c.scattered()
		r := recommended("defragment")
		done := sent(r)
		want(done, "released_bytes", num(r, "expected_bytes"))
		if num(done, "after.segments") >= num(done, "before.segments") {
			fail("%v", done)
		}
		for id, holds := range kept {
			c.secondSees(id, holds)
		}
		over("defragment")
	})
	add(schemas.ActionOptimizationRecs, "raise_limit-gives-what-it-promised", func() {
		was := num(c.memory(c.device), "total_memory")
		defer c.do(schemas.ActionSetLimits, object{"device_id": c.device, "limit_bytes": was})
		c.do(schemas.ActionSetLimits, object{"device_id": c.device, "limit_bytes": was / 2})
		c.grant(c.device, was/2*9/10)
		r := recommended("raise_limit")
		want(sent(r), "limit_bytes", was/2+num(r, "expected_bytes"))
		want(c.memory(c.device), "total_memory", was/2+num(r, "expected_bytes"))
		c.tidy()
		c.eventually(func() string {
			return differs(text(c.do(schemas.ActionGetPressure, object{"device_id": c.device}), "pressure.pressure_level"), "low")
		})
	})
	add(schemas.ActionOptimizationRecs, "set_pinned-keeps-the-model", func() {
		in := object{"name": modelName, "path": c.modelPath, "device_id": c.device, "wait_ms": waitFor}
		for range 3 {
			c.do(schemas.ActionLoadModel, in)
			c.do(schemas.ActionUnloadModel, object{"name": modelName})
		}
		c.do(schemas.ActionLoadModel, in)
		want(sent(recommended("set_pinned")), "model.pinned", true)
		want(c.do(schemas.ActionModelOptimize, object{"device_id": c.device, "min_memory_to_free": 1, "wait_ms": waitFor}), "models_unloaded", []any{})
		over("set_pinned")
		c.do(schemas.ActionLoadModel, with(in, "pinned", false))
	})
	add(schemas.ActionOptimizationRecs, "release_zombie-names-who-holds-the-bytes-and-frees-them", func() {
		s := c.share(false)
		defer s.end()
		id, _ := c.given(s, c.device, 4*mib)
		z := c.do(schemas.ActionDeallocate, object{"allocation_id": id, "force": true, "deadline_ms": 1, "wait_ms": waitFor})
		r := recommended("release_zombie")
		want(r, "expected_bytes", num(z, "zombie_bytes"), "command.data.allocation_id", id)
		close(s.heed)
		in, _ := at(r, "command.data").(object)
		if got := c.ask(schemas.Action(text(r, "command.action")), in); !got.ok && got.code != schemas.CodeAllocationNotFound {
			fail("%s", got)
		}
		c.eventually(func() string { return zero(c.memory(c.device), "zombie_memory") })
		over("release_zombie")
	})
}

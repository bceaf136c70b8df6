package contract

import (
	"testing"

	data "github.com/isobar-project/isobar/dataplane/client"
)

func TestModelOptimizeOnTheWire(t *testing.T) {
	inBoth(t, func(c *caller) {
		for _, m := range []string{"a", "b", "c", "d"} {
			c.load(m, 16)
		}
		c.load("pinned", 16, "pinned", true)
		in := obj{"device_id": "gpu-0", "optimization_type": "FIFO", "min_memory_to_free": 20 * mib, "exclude_models": []any{"a"}, "max_models_to_unload": 3,
			"target_usage_percentage": 99.5, "target_pressure_level": "high", "max_optimization_time_ms": 60_000}
		foreseen := c.do("model_optimize", with(in, "dry_run", true))
		c.want(foreseen, "plan.outcome", "granted", "plan.evict.0.model", "b", "plan.evict.1.model", "c", "plan.evict.1.freed_bytes", 16*mib, "plan.evict.2", nil)
		c.want(c.memory(), "model_memory", 80*mib)
		r := c.do("model_optimize", in, id("the optimization"))
		c.want(r, "optimization_triggered", true, "optimization_strategy", "fifo", "memory_freed", 32*mib, "memory_freed_bytes", 32*mib,
			"models_unloaded", []any{"b", "c"}, "optimization_details.0.kind", "drop", "optimization_details.0.subject", "b",
			"optimization_details.0.freed_bytes", 16*mib, "optimization_details.2", nil)
		c.want(c.memory(), "model_memory", 48*mib)
		mine := of("request_id", "the optimization")
		c.want(c.await("started", "optimization.test.gpu-0", mine).data, "target_bytes", 20*mib, "strategy", "fifo", "evicted.0.model", "b")
		c.want(c.await("completed", "optimization.test.gpu-0", mine).data, "freed_bytes", 32*mib, "steps.1.subject", "c")
		again := c.do("model_optimize", in, id("the optimization"))
		c.want(again, "replayed", true, "memory_freed", 32*mib)
		c.fails("REQUEST_ID_REUSED", "model_optimize", with(in, "optimization_type", "lru"), id("the optimization"))
		c.want(c.memory(), "model_memory", 48*mib)
		both := with(with(in, "strategy", "lru"), "force", true)
		c.fails("INVALID_REQUEST", "model_optimize", both)
		c.want(c.fails("INVALID_REQUEST", "model_optimize", obj{"target_usage_percentage": 101}), "field", "target_usage_percentage")
		none := c.do("model_optimize", obj{})
		c.want(none, "optimization_triggered", false, "models_unloaded", []any{}, "memory_freed", 0)
	})
}

// By force who maps a model is asked to let go; what is confirmed off the device counts,
// and what somebody keeps does not.
func TestModelOptimizeByForce(t *testing.T) {
	inBoth(t, func(c *caller) {
		r := c.load("m", 16)
		keeps := c.session(nil) // and does not heed a revocation
		held := c.maps(keeps, r["handle"], data.ReadOnly)
		c.want(c.do("model_optimize", obj{"target_usage_percentage": 0}), "optimization_triggered", false)
		forced := c.do("model_optimize", obj{"target_usage_percentage": 0, "force_optimization": true, "max_optimization_time_ms": 20, "wait_ms": 20_000})
		c.want(forced, "optimization_triggered", true, "memory_freed", 0, "models_unloaded", []any{})
		c.await("zombie", "allocation", nil)
		c.want(c.memory(), "zombie_memory", 16*mib)
		c.unmaps(keeps, held)
		c.await("unloaded", "model", of("name", "m"))

		r = c.load("m", 16)
		heeds := c.session(nil)
		m := c.maps(heeds, r["handle"], data.ReadOnly)
		done := make(chan obj, 1)
		go func() {
			a := c.ask("model_optimize", obj{"target_usage_percentage": 0, "force": true, "wait_ms": 20_000})
			done <- a.data
		}()
		c.await("release_requested", "model", func(d obj) bool { return text(d, "name") == "m" && num(d, "readers") == 1 })
		c.unmaps(heeds, m)
		c.want(<-done, "memory_freed", 16*mib, "models_unloaded", []any{"m"})
		c.want(c.memory(), "used_memory", 0)
	})
}

func TestOptimizeOnTheWire(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.load("a", 16)
		c.load("b", 16)
		c.release(c.grant(64 * mib))
		idle := num(c.memory(), "pooled_memory")
		r := c.do("optimize", obj{"device_id": "gpu-0", "optimization_type": "trim"})
		c.want(r, "freed_bytes", num(r, "before.pooled_memory"), "after.pooled_memory", 0, "steps.0.kind", "trim", "before.used_memory", 32*mib, "after.used_memory", 32*mib)
		if num(r, "freed_bytes") < 64*mib {
			c.t.Errorf("%d of %d idle bytes were freed", num(r, "freed_bytes"), idle)
		}
		keep := text(c.do("get_allocations", obj{"model_name": "b"}), "allocations.0.allocation_id")
		in := obj{"device_id": "test/gpu-0", "optimization_type": "models", "target_usage_percentage": 0, "preserve_allocations": []any{keep}}
		c.want(c.do("optimize", with(in, "dry_run", true)), "plan.outcome", "granted", "plan.evict.0.model", "a", "plan.evict.1", nil)
		c.want(c.do("optimize", in, id("opt")), "freed_bytes", 16*mib, "after.used_memory", 16*mib)
		c.want(c.do("optimize", in, id("opt")), "replayed", true, "freed_bytes", 16*mib)
		c.await("completed", "optimization", of("request_id", "opt"))
		p := c.do("optimize", obj{"device_id": "gpu-0", "target_usage_percentage": 0, "wait_for_completion": false})
		c.want(p, "status", "running")
		op := c.do("get_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 20_000})
		c.want(op, "operation.status", "completed", "operation.action", "optimize", "operation.result.after.used_memory", 0)
		c.fails("ALLOCATION_NOT_FOUND", "optimize", obj{"device_id": "gpu-0", "preserve_allocations": []any{nobody}})
	})
}

func TestCleanupOnTheWire(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.load("m", 16)
		g := c.grant(4*mib, "class", "scratch")
		stays := c.grant(4*mib, "class", "state")
		c.want(c.fails("INVALID_REQUEST", "cleanup", obj{"confirm": false}), "field", "confirm")
		d := c.session(nil)
		m := c.maps(d, g["handle"], data.ReadWrite)
		c.fails("ALLOCATION_IN_USE", "cleanup", obj{"confirm": true, "device_id": "gpu-0"})
		c.want(c.do("cleanup", obj{"confirm": true, "dry_run": true}), "plan.outcome", "refused")
		c.unmaps(d, m)
		c.want(c.do("cleanup", obj{"confirm": true, "dry_run": true}), "plan.outcome", "granted", "plan.evict.0.model", "m")
		c.want(c.do("cleanup", obj{"confirm": true}, id("the cleanup")), "freed_bytes", 20*mib, "models_unloaded", []any{"m"})
		c.want(c.await("deallocated", "allocation", of("allocation_id", text(g, "allocation_id"))).data, "reason", "its tenant cleans up")
		c.want(c.do("cleanup", obj{"confirm": true}, id("the cleanup")), "replayed", true, "freed_bytes", 20*mib)
		c.want(c.do("get_allocations", obj{}), "allocations.0.allocation_id", text(stays, "allocation_id"), "allocations.1", nil)
		c.release(stays)
	})
}

func TestAnalyticsOnTheWire(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.load("m", 16)
		c.do("load_model", obj{"name": "m"})
		c.grant(64 * mib)
		r := c.do("analytics", obj{"device_id": "gpu-0", "window_seconds": 600, "resolution_seconds": 60})
		last := size(r, "series") - 1
		points := r["series"].([]any)
		c.want(points[last], "device_id", "gpu-0", "used_memory", 80*mib, "available_memory", 960*mib, "pressure_level", "low")
		c.want(r, "peaks.0.used_memory", 80*mib, "percentiles.grant.count", 1, "percentiles.load.count", 1, "model_hit_rate", 0.5,
			"top_holders.0.bytes", 64*mib, "leak_suspects", []any{}, "gaps", []any{},
			"model_requests.0.requests", 2, "model_requests.0.loads", 1, "what_if.3.delta_bytes", 0, "what_if.3.loads", 1, "what_if.6.saved_seconds", 0)
		c.want(c.fails("INVALID_REQUEST", "analytics", obj{"window_seconds": 0}), "field", "window_seconds")
		c.do("analytics", obj{"window_seconds": 31_536_000})
	})
}

// A recommendation is sent as it stands, and does what was promised.
func TestRecommendationsAreReadyToSend(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.release(c.grant(64 * mib))
		r := c.do("optimization_recs", obj{"device_id": "gpu-0"})
		c.want(r, "recommendations.0.kind", "trim_pool", "recommendations.0.command.action", "optimize")
		data, _ := at(r, "recommendations.0.command.data").(obj)
		c.want(c.do("optimize", data), "freed_bytes", num(r, "recommendations.0.expected_bytes"))
		c.want(c.do("optimization_recs", obj{}), "recommendations", []any{})
	})
}

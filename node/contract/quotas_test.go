package contract

import (
	"testing"
)

// A hard quota refuses what can never fit, and holds what fits when the tenant lets go:
// there is memory enough for everybody else. The tenant hears of its own pressure.
func TestAHardQuota(t *testing.T) {
	inBoth(t, func(c *caller) {
		r := c.do("set_limits", obj{"device_id": "gpu-0", "tenant": obj{"name": "default", "hard_bytes": 100 * mib, "soft_bytes": 90 * mib, "weight": 2}})
		c.want(r, "tenant.name", "default", "tenant.hard_bytes", 100*mib, "tenant.soft_bytes", 90*mib, "tenant.floor_bytes", 0, "tenant.weight", 2)
		c.want(c.fails("QUOTA_EXCEEDED", "allocate", obj{"device_id": "gpu-0", "size_bytes": 102 * mib}), "tenant", "default", "hard_bytes", 100*mib, "available_bytes", 100*mib)
		g := c.grant(80 * mib)
		c.fails("QUOTA_EXCEEDED", "allocate", obj{"device_id": "gpu-0", "size_bytes": 40 * mib, "timeout_seconds": 0})
		c.want(c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 40 * mib, "timeout_seconds": 0, "dry_run": true}), "plan.outcome", "refused")
		p := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 40 * mib, "wait_ms": 0})
		c.want(p, "status", "queued", "position", 1)
		c.want(c.do("get_queue", obj{}), "waiting.0.operation_id", text(p, "operation_id"), "waiting.0.position", 1)
		high := c.await("pressure_changed", "tenant_pressure.default", of("pressure_level", "high"))
		c.want(high.data, "tenant", "default", "device_id", "gpu-0", "total_memory", 100*mib, "used_memory", 80*mib)
		own := c.do("get_pressure", obj{"device_id": "gpu-0"})
		c.want(own, "pressure.pressure_level", "low", "tenant_pressure.0.tenant", "default", "tenant_pressure.0.pressure_level", "high",
			"tenant_pressure.0.deficit_bytes", 20*mib, "tenant_pressure.0.total_memory", 100*mib)
		c.release(g)
		op := c.do("get_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 10_000})
		c.want(op, "operation.status", "completed", "operation.result.allocation.size_bytes", 40*mib)
		// Without bounds it is no quota any more.
		c.do("set_limits", obj{"device_id": "gpu-0", "tenant": obj{"name": "default", "hard_bytes": 0, "soft_bytes": 0}})
		c.release(c.grant(200 * mib))
		c.want(c.do("get_pressure", obj{"device_id": "gpu-0"}), "tenant_pressure", nil)
	})
}

// A quota is filled up again by letting go of the tenant's own unread models.
func TestAQuotaMakesRoomOfItsOwn(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.load("old", 40)
		c.do("set_limits", obj{"device_id": "gpu-0", "tenant": obj{"name": "default", "hard_bytes": 64 * mib}})
		dry := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 32 * mib, "dry_run": true})
		c.want(dry, "plan.outcome", "granted", "plan.evict.0.model", "old")
		r := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 32 * mib, "timeout_seconds": 0, "wait_ms": 10_000})
		c.want(r, "evicted.0.model", "old", "granted_bytes", nil, "allocation.size_bytes", 32*mib)
	})
}

// What is kept for a floor counts as reserved, and nobody else is granted it.
func TestAFloor(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.do("set_limits", obj{"device_id": "gpu-0", "tenant": obj{"name": "green", "floor_bytes": 1000 * mib}})
		c.want(c.memory(), "used_memory", 1000*mib, "reserved_memory", 1000*mib, "largest_grantable_bytes", 24*mib)
		c.want(c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": 32 * mib}), "largest_grantable_bytes", 24*mib)
		c.release(c.grant(24 * mib))
		for _, bad := range []struct {
			field string
			in    obj
		}{
			{"tenant.floor_bytes", obj{"name": "blue", "floor_bytes": 100 * mib}},
			{"tenant.soft_bytes", obj{"name": "blue", "soft_bytes": 100 * mib, "hard_bytes": 10 * mib}},
			{"tenant.floor_bytes", obj{"name": "green", "hard_bytes": 10 * mib}},
			{"tenant.name", obj{"name": "No.Name", "hard_bytes": 10 * mib}},
		} {
			c.want(c.fails("INVALID_REQUEST", "set_limits", obj{"device_id": "gpu-0", "limit_bytes": 500 * mib, "tenant": bad.in}), "field", bad.field)
		}
		c.want(c.memory(), "total_memory", 1024*mib)
	})
}

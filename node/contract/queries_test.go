package contract

import (
	"slices"
	"testing"

	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

func TestListDevices(t *testing.T) {
	inBoth(t, func(c *caller) {
		r := c.do("list_devices", obj{})
		c.want(r, "devices.0.device_id", "gpu-0", "devices.0.type", "VRAM", "devices.0.simulated", true, "devices.0.granularity_bytes", 2*mib,
			"devices.0.health", "healthy", "devices.0.health_reasons", []any{}, "devices.0.peers", []any{},
			"devices.1.device_id", "ram-0", "devices.1.type", "RAM", "devices.1.simulated", false)
		if size(r, "devices") != 2 || text(r, "devices.0.name") == "" || text(r, "devices.0.driver") == "" || text(r, "devices.0.uuid") == "" {
			c.t.Errorf("devices %v", r)
		}
	}, nodetest.Devices("sim:gpu-0=1GiB", "ram:ram-0=64MiB"))
}

func TestGetStatus(t *testing.T) {
	inBoth(t, func(c *caller) {
		a, b := c.grant(20*mib), c.grant(30*mib)
		ram := c.do("allocate", obj{"device_id": "ram-0", "size_bytes": 8 * mib})
		one := c.do("get_status", obj{"device_id": "gpu-0"})
		c.want(one, "device_id", "gpu-0", "memory_info.used_memory", 50*mib, "usage_stats.allocation_count", 2, "usage_stats.grants_total", 2,
			"usage_stats.releases_total", 0, "usage_stats.peak_memory", 50*mib, "usage_stats.queue_length", 0, "usage_stats.model_count", 0,
			"health_score", 100, "fragmentation", nil, "devices", nil, "model_memory.memory_usage_bytes", 0, "model_memory.memory_limit_bytes", 1024*mib,
			"model_memory.memory_limit_mb", 1024, "model_memory.model_count", 0)
		if size(one, "allocations") != 2 {
			c.t.Errorf("allocations %v", one["allocations"])
		}
		bare := c.do("get_status", obj{"device_id": "gpu-0", "include_allocations": false, "include_usage_stats": false, "include_fragmentation": true})
		c.want(bare, "allocations", []any{}, "usage_stats", nil, "fragmentation.segments", num(bare, "fragmentation.segments"))
		if num(bare, "fragmentation.segments") < 2 {
			c.t.Errorf("fragmentation %v", bare["fragmentation"])
		}
		all := c.do("get_status", obj{})
		c.want(all, "device_id", "all", "devices.0.device_id", "gpu-0", "devices.1.device_id", "ram-0", "memory_info.used_memory", 50*mib+num(ram, "allocation.granted_bytes"),
			"memory_info.total_memory", 1024*mib+64*mib, "usage_stats.allocation_count", 3, "usage_stats.grants_total", 3)
		c.want(c.do("get_status", obj{"device_id": "all"}), "device_id", "all")
		page := c.do("get_status", obj{"device_id": "gpu-0", "limit": 1})
		if size(page, "allocations") != 1 || text(page, "next_cursor") == "" {
			c.t.Errorf("limit 1: %v", page)
		}
		// The cursor of get_status goes on with get_allocations.
		rest := c.do("get_allocations", obj{"device_id": "gpu-0", "cursor": page["next_cursor"]})
		if size(rest, "allocations") != 1 || text(rest, "allocations.0.allocation_id") == text(page, "allocations.0.allocation_id") {
			c.t.Errorf("after the cursor: %v", rest)
		}
		for _, g := range []obj{a, b, ram} {
			c.release(g)
		}
		c.want(c.do("get_status", obj{"device_id": "gpu-0"}), "usage_stats.releases_total", 2, "usage_stats.allocation_count", 0, "usage_stats.peak_memory", 50*mib)
		c.want(c.fails("INVALID_DEVICE", "get_status", obj{"device_id": "gpu-9"}), "devices", []any{"gpu-0", "ram-0"})
	}, nodetest.Devices("sim:gpu-0=1GiB", "ram:ram-0=64MiB"))
}

func TestGetUsage(t *testing.T) {
	inBoth(t, func(c *caller) {
		d := c.session(nil)
		c.grant(20*mib, "session_id", d.Session().ID)
		c.grant(30*mib, "class", "state")
		r := c.do("get_usage", obj{"device_id": "gpu-0"})
		c.want(r, "devices.0.device_id", "gpu-0", "devices.0.peak_memory", 50*mib, "devices.0.allocation_count", 2, "devices.0.model_count", 0,
			"devices.0.by_class", []any{obj{"name": "scratch", "bytes": int64(20 * mib), "count": int64(1)}, obj{"name": "state", "bytes": int64(30 * mib), "count": int64(1)}},
			"devices.0.by_tenant", []any{obj{"name": "default", "bytes": int64(50 * mib), "count": int64(2)}},
			"devices.0.by_process.0.bytes", 20*mib, "devices.0.memory_info.used_memory", 50*mib)
		if size(c.do("get_usage", obj{}), "devices") != 2 {
			c.t.Error("no device named: not every device")
		}
		c.fails("INVALID_DEVICE", "get_usage", obj{"device_id": "nowhere"})
	}, nodetest.Devices("sim:gpu-0=1GiB", "sim:gpu-1=1GiB"))
}

func TestGetAllocationsFiltersAndPages(t *testing.T) {
	inBoth(t, func(c *caller) {
		all := map[string]bool{}
		for i, dev := range []string{"gpu-0", "gpu-1", "gpu-2"} {
			for k := range 4 + i {
				class := []string{"scratch", "state"}[k%2]
				r := c.do("allocate", obj{"device_id": dev, "size_bytes": 2 * mib, "class": class, "purpose": []string{"kv", "work", "kv"}[k%3]})
				all[text(r, "allocation_id")] = true
			}
		}
		for _, limit := range []int{1, 2, 4, 5, 7, 15, 100} {
			left, cursor, pages := len(all), any(""), 0
			seen := map[string]bool{}
			for {
				r := c.do("get_allocations", obj{"limit": limit, "cursor": cursor})
				n := size(r, "allocations")
				for i := range n {
					seen[text(r["allocations"].([]any)[i], "allocation_id")] = true
				}
				left, pages = left-n, pages+1
				if cursor = r["next_cursor"]; cursor == nil {
					break
				}
				if n != limit || pages > 20 {
					c.t.Fatalf("limit %d: page %d has %d", limit, pages, n)
				}
			}
			if left != 0 || len(seen) != len(all) {
				c.t.Errorf("limit %d: %d seen, %d left", limit, len(seen), left)
			}
		}
		for _, f := range []struct {
			in   obj
			want int
		}{
			{obj{"device_id": "gpu-1"}, 5}, {obj{"class": "state"}, 7}, {obj{"purpose": "kv", "device_id": "gpu-0"}, 3}, {obj{"status": "active"}, 15},
			{obj{"status": "revoking"}, 0}, {obj{"class": "weights"}, 0}, {obj{"model_name": "none"}, 0}, {obj{"purpose": ""}, 15},
		} {
			if n := size(c.do("get_allocations", f.in), "allocations"); n != f.want {
				c.t.Errorf("%v lists %d, not %d", f.in, n, f.want)
			}
		}
		c.want(c.fails("INVALID_REQUEST", "get_allocations", obj{"cursor": "gpu-7/x"}), "field", "cursor")
		c.want(c.fails("INVALID_REQUEST", "get_allocations", obj{"limit": 0}), "field", "limit")
		if n := size(c.do("get_allocations", obj{"tenant": "other"}), "allocations"); n != 0 {
			c.t.Errorf("another tenant's list has %d of ours", n)
		}
	}, nodetest.Devices("sim:gpu-0=1GiB", "sim:gpu-1=1GiB", "sim:gpu-2=1GiB"))
}

func TestGetPressure(t *testing.T) {
	inBoth(t, func(c *caller) {
		// Even before anything has happened it carries the figures.
		r := c.do("get_pressure", obj{})
		if size(r, "devices") != 2 {
			c.t.Fatalf("devices %v", r)
		}
		c.want(r, "devices.0.device_id", "gpu-0", "devices.0.pressure_level", "low", "devices.0.total_memory", 1024*mib, "devices.0.sequence", 0)
		g := c.grant(900 * mib)
		e := c.await("pressure_changed", "events.pressure.test.gpu-0", nil)
		c.want(e.data, "pressure_level", "high", "previous_level", "low", "cause", "grant", "used_memory", 900*mib, "total_memory", 1024*mib,
			"utilization_percentage", 100*900.0/1024, "sequence", 1, "quality", "fresh")
		p := c.do("get_pressure", obj{"device_id": "gpu-0"})
		c.want(p, "pressure.pressure_level", "high", "pressure.sequence", int(e.sequence), "pressure.used_memory", 900*mib, "pressure.episode_id", text(e.data, "episode_id"),
			"pressure.available_memory", 124*mib, "pressure.largest_grantable_bytes", 124*mib, "devices", nil)
		// To leave high: down to four fifths of the limit.
		if target := num(p, "pressure.target_bytes"); target != 900*mib-1024*mib*8/10 && target != 900*mib-1024*mib*8/10+1 {
			c.t.Errorf("target_bytes %d", target)
		}
		c.release(g)
		c.fails("INVALID_DEVICE", "get_pressure", obj{"device_id": "x"})
	}, nodetest.Devices("sim:gpu-0=1GiB", "sim:gpu-1=1GiB"))
}

// Any action goes by memory.command, and by the node's own subject.
func TestSubjects(t *testing.T) {
	inBoth(t, func(c *caller) {
		for _, name := range []string{"list_devices", "memory.list_devices"} {
			a := c.askOn("memory.command", obj{}, func(m *obj) { (*m)["action"] = name })
			c.fits("list_devices", obj{}, a.data)
		}
		a := c.askOn("memory.list_devices.test", obj{})
		c.fits("list_devices", obj{}, a.data)
		c.refused("UNKNOWN_ACTION", "memory.command", c.askOn("memory.command", obj{}, func(m *obj) { (*m)["action"] = "levitate" }))
		c.refused("INVALID_REQUEST", "no action", c.askOn("memory.command", obj{}))
		c.refused("INVALID_REQUEST", "another action", c.askOn("memory.get_status", obj{}, func(m *obj) { (*m)["action"] = "allocate" }))
		// An object without envelope is the data; nothing at all is empty data.
		b, err := c.f.encode(obj{"device_id": "gpu-0"})
		if err != nil {
			c.t.Fatal(err)
		}
		c.want(c.raw("memory.get_status", b).data, "device_id", "gpu-0")
		c.want(c.raw("memory.get_status", nil).data, "device_id", "all")
	})
}

// Everything is offered, and nothing answers that it is not built.
func TestEverythingIsBuilt(t *testing.T) {
	inBoth(t, func(c *caller) {
		offered, _ := c.do("model_status", obj{})["available_operations"].([]any)
		for _, spec := range schemas.All() {
			if !slices.Contains(offered, any(string(spec.Action))) {
				c.t.Errorf("%s is not among %v", spec.Action, offered)
			}
			if code := c.raw("memory."+string(spec.Action), nil).code; code == string(schemas.CodeNotImplemented) {
				c.t.Errorf("%s is not built", spec.Action)
			}
		}
	})
}

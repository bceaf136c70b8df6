package contract

import (
	"os"
	"testing"

	data "github.com/isobar-project/isobar/dataplane/client"
)

// A model goes to main memory and comes back from there, byte for byte and without its file.
func TestModelsGoToMainMemoryAndBack(t *testing.T) {
	t.Parallel()
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			c := start(t, f, drivers(gpu(t, "gpu-0"), ramOf(t, 64*mib)))
			spec := whole(12, 3)
			path := c.file("m", spec)
			c.do("load_model", obj{"name": "m", "path": path, "device_id": "gpu-0", "wait_ms": 10_000})
			whole := func(handle any, kind string) {
				t.Helper()
				d := c.session(nil)
				m := c.maps(d, handle, data.ReadOnly)
				for i, tn := range spec.Tensors {
					if err := spec.Check(i, 0, m.Tensor(tn.Name)); err != nil {
						t.Errorf("%s on the %s: %v", tn.Name, kind, err)
					}
				}
				c.unmaps(d, m)
			}

			down := obj{"name": "m", "to": "ram", "wait_ms": 10_000}
			c.want(c.do("unload_model", with(down, "dry_run", true)), "plan.outcome", "granted")
			c.want(c.do("unload_model", down, id("down")), "unloaded", true, "freed_bytes", 12*mib, "confirmed", true, "zombie_bytes", 0, "models_unloaded", []any{"m"})
			c.want(c.do("unload_model", down, id("down")), "replayed", true, "freed_bytes", 12*mib)
			c.want(c.do("get_model_info", obj{"name": "m"}), "models.0.state", "sealed", "models.0.residency.0.device_id", "ram-0", "models.0.residency.0.tier", "ram",
				"models.0.residency.0.size_bytes", 12*mib, "models.0.residency.1", nil)
			c.want(c.do("model_status", obj{"device_id": "ram-0"}), "loaded_models.m.residency.0.tier", "ram", "model_count", 1)
			c.want(c.do("model_status", obj{"device_id": "gpu-0"}), "model_count", 0, "memory_usage_bytes", 0)
			c.want(c.await("loaded", "model.test.ram-0", of("name", "m")).data, "source_tier", "vram", "tier", "ram", "request_id", "down")
			c.want(c.await("demoted", "model.test.gpu-0", of("name", "m")).data, "freed_bytes", 12*mib, "reason", "demoted to main memory")
			whole(c.do("get_handle", obj{"model_name": "m"})["handle"], "ram")
			c.want(c.do("unload_model", down), "unloaded", false, "freed_bytes", 0, "models_unloaded", []any{})

			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			c.want(c.do("load_model", obj{"name": "m", "device_id": "gpu-0", "dry_run": true}), "plan.outcome", "granted")
			up := c.do("load_model", obj{"name": "m", "wait_ms": 10_000}, id("up")) // back to where it was
			c.want(up, "loaded", true, "tier", "vram", "source_tier", "ram", "model.residency.0.device_id", "gpu-0", "model.residency.1.device_id", "ram-0", "model.loads", 2)
			c.want(c.await("promoted", "model.test.gpu-0", of("name", "m")).data, "source_tier", "ram", "bytes_done", 12*mib, "request_id", "up")
			whole(up["handle"], "gpu")
			if c.do("get_model_info", obj{"name": "m"}); num(c.memory(), "model_memory") != 12*mib {
				t.Errorf("the device holds %v", c.memory())
			}

			// Main memory that is full refuses, and the model stays where it is.
			c.do("unload_model", obj{"name": "m", "device_id": "ram-0"})
			c.do("allocate", obj{"device_id": "ram-0", "size_bytes": 60 * mib})
			c.want(c.do("unload_model", with(down, "dry_run", true)), "plan.outcome", "refused")
			c.fails("OUT_OF_MEMORY", "unload_model", down)
			c.want(c.do("get_model_info", obj{"name": "m"}), "models.0.residency.0.device_id", "gpu-0", "models.0.residency.1", nil)
		})
	}
}

// A node without main memory cannot keep a model there, and says so.
func TestDemotionNeedsMainMemory(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.load("m", 4)
		c.want(c.fails("INVALID_DEVICE", "unload_model", obj{"name": "m", "to": "ram"}), "field", "to")
	})
}

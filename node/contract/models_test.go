package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// whole is a model of exactly n MiB in tensors of 4 MiB.
func whole(n int, seed uint64) weightstest.Spec {
	s := weightstest.Spec{Seed: seed, Metadata: map[string]string{"format": "pt"}}
	for i := range n / 4 {
		s.Tensors = append(s.Tensors, weightstest.Tensor{Name: fmt.Sprintf("layers.%d.weight", i), DType: "F16", Shape: []int64{2048, 1024}})
	}
	return s
}

// file writes a model below the model root.
func (c *caller) file(name string, s weightstest.Spec) string {
	c.t.Helper()
	path := filepath.Join(c.n.ModelRoot, name+".safetensors")
	if err := s.WriteSafetensors(path); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// hollow makes a model of n MiB in tensors of 4 MiB that are holes in the file: where
// nobody looks at the bytes, none need be made.
func (c *caller) hollow(name string, n int) string {
	c.t.Helper()
	tensors := []string{}
	for i := range n / 4 {
		tensors = append(tensors, fmt.Sprintf(`"layers.%d.weight":{"dtype":"F16","shape":[2048,1024],"data_offsets":[%d,%d]}`, i, i<<22, (i+1)<<22))
	}
	b := header("{" + strings.Join(tensors, ",") + "}")
	path := filepath.Join(c.n.ModelRoot, name+".safetensors")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(b)+n<<20)); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *caller) load(name string, mib int, more ...any) obj {
	c.t.Helper()
	in := obj{"name": name, "path": c.hollow(name, mib), "wait_ms": 10_000}
	for i := 0; i < len(more); i += 2 {
		in[more[i].(string)] = more[i+1]
	}
	return c.do("load_model", in)
}

func TestModelIsLoadedOnceReadAndUnloaded(t *testing.T) {
	inBoth(t, func(c *caller) {
		spec := whole(12, 3)
		in := obj{"name": "m", "path": c.file("m", spec), "type": "unet", "wait_ms": 10_000, "estimated_size_mb": 12.5, "keep_warm": true}
		r := c.do("load_model", in, id("the load"))
		c.want(r, "loaded", true, "tier", "vram", "source_tier", "disk", "evicted", []any{}, "model.name", "m", "model.type", "unet", "model.state", "sealed",
			"model.size_bytes", 12*mib, "model.tensor_count", 3, "model.readers", 0, "model.loads", 1, "model.pinned", false, "model.shared", false,
			"model.tenant", "default", "model.path", in["path"], "model.residency.0.device_id", "gpu-0", "model.residency.0.tier", "vram",
			"model.residency.0.size_bytes", 12*mib, "model.residency.0.allocation_id", text(r, "allocation_ids.0"), "handle.size_bytes", 12*mib)
		c.want(c.await("loading", "model.test.gpu-0", of("name", "m")).data, "request_id", "the load", "tenant", "default")
		c.want(c.await("loaded", "model", of("name", "m")).data, "size_bytes", 12*mib, "state", "sealed", "tier", "vram", "source_tier", "disk", "bytes_done", 12*mib)
		c.want(c.memory(), "model_memory", 12*mib, "used_memory", 12*mib, "reclaimable_memory", 12*mib, "available_memory", 1024*mib)
		a := c.do("get_allocations", obj{"class": "weights", "model_name": "m"})
		c.want(a, "allocations.0.allocation_id", text(r, "allocation_ids.0"), "allocations.0.model_name", "m")
		c.want(c.fails("INVALID_REQUEST", "deallocate", obj{"allocation_id": text(r, "allocation_ids.0")}), "field", "allocation_id")

		// Every tensor is there, and is what the file says.
		d := c.session(nil)
		m := c.maps(d, r["handle"], data.ReadOnly)
		for i, tn := range spec.Tensors {
			if err := spec.Check(i, 0, m.Tensor(tn.Name)); err != nil || len(m.Tensor(tn.Name)) != 4*mib {
				c.t.Errorf("%s: %v", tn.Name, err)
			}
		}
		c.want(c.do("get_model_info", obj{"name": "m"}), "models.0.readers", 1)
		c.want(c.memory(), "reclaimable_memory", 0, "available_memory", 1012*mib)
		// A known model needs no path; loaded again it is a hit.
		hit := c.do("load_model", obj{"name": "m"})
		c.want(hit, "source_tier", "vram", "allocation_ids.0", text(r, "allocation_ids.0"), "model.loads", 1)
		h := c.do("get_handle", obj{"model_name": "m", "device_id": "gpu-0"})
		if _, err := d.Map(t0(c.t), text(h, "handle.claim"), data.ReadWrite); err == nil {
			c.t.Error("weights were mapped to be written")
		}
		c.want(c.fails("MODEL_IN_USE", "unload_model", obj{"name": "m"}), "readers", 1)
		c.want(c.do("unload_model", obj{"name": "m", "dry_run": true}), "plan.outcome", "refused")
		c.unmaps(d, m)
		gone := c.do("unload_model", obj{"name": "m", "device_id": "gpu-0"})
		c.want(gone, "unloaded", true, "freed_bytes", 12*mib, "confirmed", true, "zombie_bytes", 0, "models_unloaded", []any{"m"})
		c.want(c.await("release_requested", "model", of("name", "m")).data, "reason", "unloaded by a client")
		c.want(c.await("unloaded", "model", of("name", "m")).data, "freed_bytes", 12*mib)
		c.want(c.memory(), "model_memory", 0, "used_memory", 0)
		c.want(c.do("unload_model", obj{"name": "m"}), "unloaded", false, "freed_bytes", 0)
		c.fails("MODEL_NOT_FOUND", "unload_model", obj{"name": "never"})
		c.fails("MODEL_NOT_FOUND", "get_handle", obj{"model_name": "m"})
	})
}

func TestModelFilesThatCannotBeLoaded(t *testing.T) {
	inBoth(t, func(c *caller) {
		root := c.n.ModelRoot
		put := func(name string, b []byte) string {
			path := filepath.Join(root, name)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				c.t.Fatal(err)
			}
			return path
		}
		outside := filepath.Join(c.t.TempDir(), "out.safetensors")
		if err := whole(4, 1).WriteSafetensors(outside); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(root, "way-out.safetensors")); err != nil {
			c.t.Fatal(err)
		}
		cut := put("cut.safetensors", nil)
		if err := whole(8, 1).WriteSafetensors(cut); err != nil {
			c.t.Fatal(err)
		}
		if err := os.Truncate(cut, 5*mib); err != nil {
			c.t.Fatal(err)
		}
		before := c.memory()
		for _, f := range []struct{ name, code, path string }{
			{"missing", "FILE_NOT_READABLE", filepath.Join(root, "missing.safetensors")},
			{"outside", "FILE_NOT_READABLE", outside},
			{"dots", "FILE_NOT_READABLE", filepath.Join(root, "..", "..", "etc", "passwd")},
			{"a link out", "FILE_NOT_READABLE", filepath.Join(root, "way-out.safetensors")},
			{"relative", "FILE_NOT_READABLE", "../../etc/passwd"},
			{"empty", "INVALID_MODEL", put("empty.safetensors", nil)},
			{"short", "INVALID_MODEL", put("short.safetensors", []byte{1, 2, 3})},
			{"text", "INVALID_MODEL", put("text.safetensors", []byte("not a model at all, but long enough"))},
			{"a header of 2^63", "INVALID_MODEL", put("huge.safetensors", []byte("\xff\xff\xff\xff\xff\xff\xff\x7f{}"))},
			{"a header beyond the file", "INVALID_MODEL", put("beyond.safetensors", []byte("\x00\x00\x00\x04\x00\x00\x00\x00{}"))},
			{"offsets beyond the file", "INVALID_MODEL", put("lie.safetensors", header(`{"w":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}`))},
			{"a shape that overflows", "INVALID_MODEL", put("shape.safetensors",
				header(`{"w":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}01234567`))},
			{"overlapping tensors", "INVALID_MODEL", put("overlap.safetensors",
				header(`{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}`))},
			{"negative offsets", "INVALID_MODEL", put("minus.safetensors", header(`{"a":{"dtype":"U8","shape":[8],"data_offsets":[-8,0]}}`))},
			{"truncated", "INVALID_MODEL", cut},
			{"a GGUF that lies", "INVALID_MODEL", put("lie.gguf", append([]byte("GGUF\x03\x00\x00\x00"), "\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x7f"...))},
		} {
			d := c.fails(f.code, "load_model", obj{"name": f.name, "path": f.path}, id("load "+f.name))
			if f.code == "INVALID_MODEL" && d["file"] == nil {
				c.t.Errorf("%s: details %v don't say where", f.name, d)
			}
			c.want(c.await("load_failed", "model", of("request_id", "load "+f.name)).data, "error_code", f.code, "name", f.name, "state", "failed")
			c.fails("MODEL_NOT_FOUND", "get_model_info", obj{"name": f.name})
		}
		c.fails("MODEL_NOT_FOUND", "load_model", obj{"name": "unknown"})
		after := c.memory()
		c.want(after, "used_memory", before["used_memory"], "model_memory", 0)
	})
}

// header is a safetensors file of a header alone.
func header(json string) []byte {
	n := len(json)
	return append([]byte{byte(n), byte(n >> 8), 0, 0, 0, 0, 0, 0}, json...)
}

func TestModelConflictAndNewVersion(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.load("m", 4)
		other := c.hollow("other", 8)
		c.want(c.fails("MODEL_CONFLICT", "load_model", obj{"name": "m", "path": other}), "path", filepath.Join(c.n.ModelRoot, "m.safetensors"))
		c.do("unload_model", obj{"name": "m"})
		// Unloaded, the name is free for another file.
		c.want(c.do("load_model", obj{"name": "m", "path": other, "wait_ms": 10_000}), "model.size_bytes", 8*mib)
	})
}

func TestSecondLoadJoinsTheFirst(t *testing.T) {
	inBoth(t, func(c *caller) {
		path := c.hollow("m", 32)
		const n = 6
		replies := make(chan obj, n)
		for i := range n {
			go func() {
				replies <- c.on(c.t).do("load_model", obj{"name": "m", "path": path, "wait_ms": 15_000}, id(fmt.Sprint("load ", i)))
			}()
		}
		var grant string
		for range n {
			r := <-replies
			c.want(r, "loaded", true, "model.loads", 1)
			if g := text(r, "allocation_ids.0"); grant == "" {
				grant = g
			} else if g != grant {
				c.t.Errorf("two grants for one model: %s and %s", grant, g)
			}
		}
		c.want(c.memory(), "model_memory", 32*mib)
	})
}

// A load under way shows its progress, can be looked up by request_id, and be cancelled.
func TestRunningLoad(t *testing.T) {
	inBoth(t, func(c *caller) {
		p := c.do("load_model", obj{"name": "m", "path": c.hollow("m", 64), "wait_ms": 1}, id("slow"))
		c.want(p, "status", "running")
		op := c.do("get_operation", obj{"request_id": "slow"})
		c.want(op, "operation.operation_id", text(p, "operation_id"), "operation.action", "load_model", "operation.status", "running")
		c.want(c.do("get_model_info", obj{"name": "m"}), "models.0.state", "loading")
		dry := c.do("load_model", obj{"name": "m", "dry_run": true})
		c.want(dry, "plan.outcome", "granted")
		e := c.await("load_progress", "model", of("name", "m"))
		if done := num(e.data, "bytes_done"); done <= 0 || done >= 64*mib || num(e.data, "bytes_total") != 64*mib {
			c.t.Errorf("progress %v", e.data)
		}
		r := c.do("cancel_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 10_000})
		c.want(r, "operation.status", "cancelled", "operation.error.error_code", "CANCELLED")
		c.await("load_failed", "model", of("name", "m"))
		c.want(c.memory(), "model_memory", 0, "used_memory", 0)
		// Nothing stands in the way of another try, which is answered with its result.
		p = c.do("load_model", obj{"name": "m", "path": filepath.Join(c.n.ModelRoot, "m.safetensors"), "wait_ms": 1}, id("again"))
		op = c.do("get_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 20_000})
		c.want(op, "operation.status", "completed", "operation.progress_percentage", 100, "operation.bytes_total", 64*mib, "operation.result.loaded", true)
		c.fits("load_model", obj{}, at(op, "operation.result").(obj))
		c.maps(c.session(nil), at(op, "operation.result.handle"), data.ReadOnly)
	}, nodetest.Set(func(cfg *node.Config) {
		cfg.Devices = []node.DeviceSpec{{Kind: node.DeviceSim, ID: "gpu-0", Bytes: 1 << 30, BandwidthBytesPerSecond: 80 * mib}}
	}))
}

func TestLoadQueuesForRoomAndTimesOut(t *testing.T) {
	inBoth(t, func(c *caller) {
		g := c.grant(1020 * mib)
		in := obj{"name": "m", "path": c.hollow("m", 8), "wait_ms": 0, "timeout_seconds": 30}
		p := c.do("load_model", in)
		c.await("queued", "allocation", of("model_name", "m"))
		op := c.do("get_operation", obj{"operation_id": text(p, "operation_id")})
		c.want(op, "operation.status", "queued", "operation.position", 1)
		c.want(c.do("get_queue", obj{}), "waiting.0.operation_id", text(p, "operation_id"), "waiting.0.size_bytes", 8*mib)
		c.release(g)
		op = c.do("get_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 10_000})
		c.want(op, "operation.status", "completed")
		c.do("unload_model", obj{"name": "m"})
		g = c.grant(1020 * mib)
		d := c.fails("OUT_OF_MEMORY", "load_model", obj{"name": "m", "timeout_seconds": 0})
		c.want(d, "required_bytes", 8*mib, "shortfall_bytes", 4*mib)
		d = c.fails("OUT_OF_MEMORY", "load_model", obj{"name": "m", "timeout_seconds": 1, "wait_ms": 10_000})
		c.want(d, "required_bytes", 8*mib, "shortfall_bytes", 4*mib)
		c.release(g)
	})
}

// Room is made by releasing the cheapest model that nobody reads, refers to or pinned.
func TestEvictionSparesWhoIsHeld(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.load("pinned", 48, "pinned", true)
		c.load("acquired", 48)
		ref := c.do("acquire_model", obj{"name": "acquired", "lease_seconds": 600})
		if s := until(c.t, ref, "lease_expires_at"); s < 590*time.Second {
			c.t.Errorf("reference for %v", s)
		}
		mapped := c.load("mapped", 48)
		d := c.session(nil)
		c.maps(d, mapped["handle"], data.ReadOnly)
		c.load("idle", 48)
		c.want(c.memory(), "reclaimable_memory", 48*mib, "used_memory", 192*mib, "available_memory", 112*mib)
		in := obj{"device_id": "gpu-0", "size_bytes": 100 * mib}
		plan := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 100 * mib, "dry_run": true})
		c.want(plan, "plan.outcome", "granted", "plan.evict.0.model", "idle", "plan.evict.0.freed_bytes", 48*mib, "plan.evict.0.tier", "vram")
		r := c.do("allocate", in)
		c.want(r, "evicted.0.model", "idle", "evicted.0.freed_bytes", 48*mib)
		c.want(c.await("completed", "optimization.test.gpu-0", nil).data, "evicted.0.model", "idle", "freed_bytes", 48*mib, "device_id", "gpu-0")
		c.await("unloaded", "model", of("name", "idle"))
		// The others stay, whatever is asked for.
		c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": 20 * mib, "timeout_seconds": 0})
		c.want(c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 20 * mib, "timeout_seconds": 0, "dry_run": true}), "plan.outcome", "refused")
		c.do("release_model", obj{"reference_id": text(ref, "reference_id"), "name": "acquired"})
		c.fails("MODEL_NOT_FOUND", "release_model", obj{"reference_id": text(ref, "reference_id")})
		// Nobody refers to it any more: it goes, for the request or for the pressure, whichever is first.
		c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 20 * mib, "wait_ms": 10_000})
		c.await("unloaded", "model", of("name", "acquired"))
		for _, name := range []string{"pinned", "mapped"} {
			c.want(c.do("get_model_info", obj{"name": name}), "models.0.state", "sealed")
		}
	}, nodetest.Devices("sim:gpu-0=256MiB"))
}

func TestAcquireModel(t *testing.T) {
	inBoth(t, func(c *caller) {
		c.load("m", 8)
		d := c.session(nil)
		bySession := c.do("acquire_model", obj{"name": "m", "session_id": d.Session().ID})
		byLease := c.do("acquire_model", obj{"name": "m", "lease_seconds": 1}, id("lease"))
		c.want(bySession, "lease_expires_at", nil, "model.name", "m")
		c.want(c.do("get_model_info", obj{"name": "m"}), "models.0.readers", 2)
		again := c.do("acquire_model", obj{"name": "m", "lease_seconds": 1}, id("lease"))
		c.want(again, "reference_id", text(byLease, "reference_id"), "replayed", true)
		r := c.do("renew", obj{"reference_ids": []any{text(byLease, "reference_id")}, "lease_seconds": 100})
		c.want(r, "renewed.0.reference_id", text(byLease, "reference_id"))
		c.fails("MODEL_IN_USE", "unload_model", obj{"name": "m"})
		c.fails("INVALID_REQUEST", "acquire_model", obj{"name": "m"})
		c.fails("MODEL_NOT_FOUND", "renew", obj{"reference_ids": []any{"nothing"}, "lease_seconds": 1})
		c.fails("MODEL_NOT_FOUND", "acquire_model", obj{"name": "unknown", "lease_seconds": 1})
		c.want(c.do("release_model", obj{"reference_id": text(byLease, "reference_id")}), "reference_id", text(byLease, "reference_id"))
		d.Close()
		// Once the session is gone nobody reads it, and it can go. The end of a session is told to
		// the pool, not to us: unload waits for nobody, so force shows what is left.
		gone := c.do("unload_model", obj{"name": "*", "force": true})
		c.want(gone, "unloaded", true, "confirmed", true, "freed_bytes", 8*mib)
		// Acquiring a known model that is not loaded loads it.
		c.want(c.do("acquire_model", obj{"name": "m", "lease_seconds": 60, "wait_ms": 10_000}), "model.state", "sealed", "model.loads", 2)
		c.want(c.memory(), "reclaimable_memory", 0, "model_memory", 8*mib)
	})
}

func TestLoadModelAcquiresForASession(t *testing.T) {
	inBoth(t, func(c *caller) {
		d := c.session(nil)
		loaded := c.load("m", 8, "session_id", d.Session().ID)
		hit := c.do("load_model", obj{"name": "m", "session_id": d.Session().ID}, id("hit"))
		again := c.do("load_model", obj{"name": "m", "session_id": d.Session().ID}, id("hit"))
		c.want(again, "reference_id", text(hit, "reference_id"), "replayed", true)
		c.want(c.do("load_model", obj{"name": "m"}), "reference_id", nil)
		c.want(c.do("get_model_info", obj{"name": "m"}), "models.0.readers", 2)
		c.fails("STALE_HANDLE", "load_model", obj{"name": "m", "session_id": "nobody's"})
		c.fails("MODEL_IN_USE", "unload_model", obj{"name": "m"})
		c.do("release_model", obj{"reference_id": text(loaded, "reference_id")})
		c.do("release_model", obj{"reference_id": text(hit, "reference_id")})
		c.want(c.do("unload_model", obj{"name": "m"}), "unloaded", true)
		c.do("load_model", obj{"name": "m", "session_id": d.Session().ID, "dry_run": true})
		c.want(c.do("get_model_info", obj{"name": "m"}), "models.0.readers", 0)
		c.do("load_model", obj{"name": "m", "session_id": d.Session().ID, "wait_ms": 10_000})
		c.want(c.do("get_model_info", obj{"name": "m"}), "models.0.readers", 1)
		d.Close()
		gone := c.do("unload_model", obj{"name": "*", "force": true})
		c.want(gone, "unloaded", true, "confirmed", true)
	})
}

func TestUnloadByForce(t *testing.T) {
	inBoth(t, func(c *caller) {
		revoked := make(chan data.Revocation, 4)
		d := c.session(func(r data.Revocation) { revoked <- r })
		for _, name := range []string{"a", "bb"} {
			c.maps(d, c.load(name, 8)["handle"], data.ReadOnly)
		}
		c.load("ccc", 8)
		gone := c.do("unload_model", obj{"name": "*", "force": true, "deadline_ms": 10_000, "wait_ms": 15_000})
		c.want(gone, "unloaded", true, "confirmed", true, "freed_bytes", 24*mib, "models_unloaded", []any{"a", "bb", "ccc"})
		for range 2 {
			<-revoked
		}
		c.want(c.memory(), "used_memory", 0)
		// One that does not let go leaves zombies.
		hold := make(chan struct{})
		e := c.session(func(data.Revocation) { <-hold })
		c.maps(e, c.load("a", 8)["handle"], data.ReadOnly)
		z := c.do("unload_model", obj{"name": "a", "force": true, "deadline_ms": 50, "wait_ms": 15_000})
		c.want(z, "confirmed", false, "zombie_bytes", 8*mib, "freed_bytes", 0)
		close(hold)
		c.await("confirmed", "allocation", of("model_name", "a"))
	})
}

func TestModelInfoAndStatus(t *testing.T) {
	inBoth(t, func(c *caller) {
		for _, n := range []string{"a", "b", "c", "d", "e"} {
			c.load(n, 4)
		}
		seen, cursor := "", any("")
		for range 5 {
			r := c.do("get_model_info", obj{"limit": 2, "cursor": cursor})
			for i := range size(r, "models") {
				seen += text(r, fmt.Sprintf("models.%d.name", i))
			}
			if cursor = r["next_cursor"]; cursor == nil {
				break
			}
		}
		if seen != "abcde" {
			c.t.Errorf("the pages list %q", seen)
		}
		r := c.do("get_model_info", obj{"name": "b", "include_tensors": true})
		c.want(r, "models.0.tensors.0.name", "layers.0.weight", "models.0.tensors.0.dtype", "F16", "models.0.tensors.0.shape", []any{int64(2048), int64(1024)},
			"models.0.tensors.0.size_bytes", 4*mib, "models.0.tensors.0.segment", 0, "models.0.tensors.0.offset", 0,
			"memory_usage_bytes", 20*mib, "memory_usage_mb", 20, "memory_limit_bytes", 1024*mib, "model_count", 5)
		c.want(c.do("get_model_info", obj{}), "models.0.tensors", nil)
		for _, action := range []string{"model_status", "get_model_status"} {
			s := c.do(action, obj{"device_id": "gpu-0"})
			c.want(s, "memory_usage_bytes", 20*mib, "memory_limit_mb", 1024, "available_memory_bytes", 1024*mib, "model_count", 5, "pressure_level", "low",
				"loaded_models.a.name", "a", "loaded_models.e.state", "sealed")
		}
		c.do("set_limits", obj{"device_id": "gpu-0", "model_limit_mb": 24})
		c.want(c.do("model_status", obj{}), "memory_limit_bytes", 24*mib, "available_memory_bytes", 24*mib)
		c.want(c.do("get_status", obj{"device_id": "gpu-0"}), "model_memory.memory_limit_bytes", 24*mib, "model_memory.model_count", 5, "usage_stats.model_count", 5)
		// The models' own limit makes room among them alone.
		c.want(c.load("ff", 8), "evicted.0.freed_bytes", 4*mib)
		c.fails("OUT_OF_MEMORY", "load_model", obj{"name": "big", "path": c.hollow("big", 28)})
		c.want(c.memory(), "model_memory", 24*mib)
	})
}

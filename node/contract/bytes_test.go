package contract

import (
	"bytes"
	"crypto/sha256"
	"testing"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/device/hostram"
)

// holds checks what a grant holds by mapping it, as any consumer does.
func (c *caller) holds(id string, want []byte) {
	c.t.Helper()
	d := c.session(nil)
	m := c.maps(d, c.do("get_handle", obj{"allocation_id": id})["handle"], data.ReadOnly)
	h := sha256.New()
	for _, s := range m.Segments {
		h.Write(s.Bytes)
	}
	if !bytes.Equal(h.Sum(nil), func() []byte { s := sha256.Sum256(want); return s[:] }()) {
		c.t.Errorf("allocation %s does not hold what it should", id)
	}
	c.unmaps(d, m)
}

// write puts bytes into a grant from outside of the node.
func (c *caller) write(id string, b []byte) {
	c.t.Helper()
	d := c.session(nil)
	m := c.maps(d, c.do("get_handle", obj{"allocation_id": id})["handle"], data.ReadWrite)
	for _, s := range m.Segments {
		b = b[copy(s.Bytes, b):]
	}
	c.unmaps(d, m)
}

// noise is n bytes of which no two pages are alike.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint64(n)
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}

func TestClearAndCopy(t *testing.T) {
	inBoth(t, func(c *caller) {
		a, b := text(c.grant(5*mib, "persistent", true), "allocation_id"), text(c.grant(300_001, "persistent", true), "allocation_id")
		bytesA, bytesB := noise(5*mib), noise(300_001)
		c.write(a, bytesA)
		c.write(b, bytesB)
		c.holds(a, bytesA)

		c.want(c.do("clear", obj{"allocation_id": a, "offset": 4095, "size_bytes": 70_000, "fill_value": 171}), "cleared_bytes", 70_000)
		copy(bytesA[4095:], bytes.Repeat([]byte{171}, 70_000))
		c.holds(a, bytesA)
		dry := c.do("clear", obj{"allocation_id": a, "dry_run": true})
		c.want(dry, "plan.outcome", "granted")
		c.want(c.do("copy", obj{"source_allocation_id": a, "target_allocation_id": b, "source_offset": 4000, "target_offset": 1, "size_bytes": 300_000}), "copied_bytes", 300_000)
		copy(bytesB[1:], bytesA[4000:304_000])
		c.holds(b, bytesB)
		c.want(c.do("copy", obj{"source_allocation_id": b, "target_allocation_id": a}), "copied_bytes", 300_001)
		copy(bytesA, bytesB)
		c.holds(a, bytesA)

		// A repeated request has no second effect.
		c.do("clear", obj{"allocation_id": b, "size_bytes": 10, "fill_value": 1}, id("once"))
		c.write(b, bytesB)
		c.want(c.do("clear", obj{"allocation_id": b, "size_bytes": 10, "fill_value": 1}, id("once")), "replayed", true)
		c.holds(b, bytesB)

		for _, in := range []obj{
			{"source_allocation_id": a, "target_allocation_id": b},
			{"source_allocation_id": a, "target_allocation_id": a, "target_offset": 1000, "size_bytes": 1001},
			{"source_allocation_id": b, "target_allocation_id": a, "source_offset": 300_001},
			{"source_allocation_id": b, "target_allocation_id": a, "target_offset": 5 * mib},
		} {
			if d := c.fails("INVALID_TRANSFER_PARAMS", "copy", in); text(d, "field") == "" {
				c.t.Errorf("%v: no field in %v", in, d)
			}
		}
		c.want(c.fails("INVALID_REQUEST", "clear", obj{"allocation_id": a, "offset": 5 * mib}), "field", "offset")
		c.want(c.fails("INVALID_REQUEST", "clear", obj{"allocation_id": a, "offset": 1, "size_bytes": 5 * mib}), "field", "size_bytes")
		c.want(c.fails("INVALID_REQUEST", "clear", obj{"allocation_id": a, "fill_value": 256}), "field", "fill_value")
		c.want(c.fails("INVALID_REQUEST", "clear", obj{"device_id": "gpu-0"}), "field", "confirm")
		c.fails("INVALID_DEVICE", "clear", obj{"device_id": "gpu-9", "confirm": true})
		c.holds(a, bytesA)

		used := c.memory()["used_memory"]
		c.want(c.do("clear", obj{"device_id": "gpu-0", "confirm": true}), "cleared_bytes", used)
		c.want(c.memory(), "used_memory", 0)
	})
}

func TestClearOfADeviceReleasesEverything(t *testing.T) {
	inBoth(t, func(c *caller) {
		g := c.grant(3 * mib)
		c.maps(c.session(nil), g["handle"], data.ReadWrite) // and does not let go when asked
		c.grant(2*mib, "persistent", true)
		before := num(c.memory(), "used_memory")
		r := c.do("clear", obj{"device_id": "gpu-0", "confirm": true, "wait_ms": 10000})
		if got := num(r, "cleared_bytes"); got < 1 || got > before {
			c.t.Errorf("%d of %d bytes cleared", got, before)
		}
		c.await("deallocated", "allocation", nil)
	})
}

// ramOf is main memory of a few megabytes, with the kernel's own count of its pages.
func ramOf(t testing.TB, bytes int64) *hostram.Driver {
	t.Helper()
	d, err := hostram.New(hostram.Config{ID: "ram-0", PhysicalBytes: bytes})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A grant goes from one kind of memory to another and back, byte for byte.
func TestTransferBetweenKinds(t *testing.T) {
	t.Parallel()
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			ram := ramOf(t, 256*mib)
			c := start(t, f, drivers(gpu(t, "gpu-0"), ram))
			content := noise(9*mib + 17)
			src := text(c.grant(int64(len(content)), "persistent", true, "purpose", "kv"), "allocation_id")
			c.write(src, content)

			dry := c.do("transfer", obj{"allocation_id": src, "target_device_id": "ram-0", "dry_run": true})
			c.want(dry, "plan.outcome", "granted")
			there := c.do("transfer", obj{"allocation_id": src, "target_device_id": "ram-0", "wait_ms": 20000}, id("there"))
			target := text(there, "allocation_id")
			c.want(there, "operation.status", "completed", "operation.bytes_done", len(content), "transfer_id", text(there, "operation.operation_id"))
			c.holds(target, content)
			c.holds(src, content)
			if sample, err := ram.Sample(); err != nil || sample.OursBytes < int64(len(content)) {
				t.Errorf("the kernel holds %d bytes: %v", sample.OursBytes, err)
			}
			again := c.do("transfer", obj{"allocation_id": src, "target_device_id": "ram-0", "wait_ms": 20000}, id("there"))
			c.want(again, "replayed", true, "allocation_id", target)
			c.want(c.do("get_allocation", obj{"allocation_id": target}), "allocation.device_id", "ram-0", "allocation.purpose", "kv", "allocation.persistent", true)
			op := c.do("get_transfer", obj{"transfer_id": text(there, "transfer_id")})
			c.want(op, "operation.action", "transfer", "operation.result.allocation_id", target)
			for _, kind := range []string{"started", "completed"} {
				c.await(kind, "events.transfer", of("operation_id", text(there, "transfer_id")))
			}

			c.release(obj{"allocation_id": src})
			back := c.do("transfer", obj{"allocation_id": target, "target_device_id": "gpu-0", "source_device_id": "ram-0", "move": true, "wait_ms": 20000})
			c.await("deallocated", "ram-0", of("allocation_id", target))
			c.await("moved", "gpu-0", of("allocation_id", text(back, "allocation_id")))
			c.fails("ALLOCATION_NOT_FOUND", "get_allocation", obj{"allocation_id": target})
			c.holds(text(back, "allocation_id"), content)

			id := text(back, "allocation_id")
			for _, in := range []obj{
				{"allocation_id": id, "target_device_id": "gpu-0"},
				{"allocation_id": id, "target_device_id": "ram-0", "source_device_id": "ram-0"},
				{"allocation_id": id, "target_device_id": "ram-0", "size_bytes": len(content) + 1},
			} {
				c.fails("INVALID_TRANSFER_PARAMS", "transfer", in)
			}
			c.fails("INVALID_DEVICE", "transfer", obj{"allocation_id": id, "target_device_id": "gpu-5"})
			c.fails("TRANSFER_NOT_FOUND", "get_transfer", obj{"transfer_id": "x"})
			c.do("cancel_transfer", obj{"transfer_id": text(back, "transfer_id")}) // it has ended: nothing happens
			c.holds(id, content)

			held := c.session(nil)
			m := c.maps(held, c.do("get_handle", obj{"allocation_id": id})["handle"], data.ReadWrite)
			c.fails("ALLOCATION_IN_USE", "transfer", obj{"allocation_id": id, "target_device_id": "ram-0", "move": true})
			c.unmaps(held, m)
			big := text(c.grant(300*mib), "allocation_id")
			c.fails("OUT_OF_MEMORY", "transfer", obj{"allocation_id": big, "target_device_id": "ram-0"})
			c.want(c.do("get_status", obj{"device_id": "ram-0"}), "memory_info.used_memory", 0)
		})
	}
}

func TestDefragmentReleasesSegments(t *testing.T) {
	inBoth(t, func(c *caller) {
		content := map[string][]byte{}
		var all []string
		for range 30 {
			all = append(all, text(c.grant(290_000, "persistent", true), "allocation_id"))
		}
		for i, g := range all {
			if i%4 != 0 {
				c.release(obj{"allocation_id": g})
				continue
			}
			content[g] = noise(290_000 - i)
			c.write(g, content[g])
			content[g] = append(content[g], make([]byte, i)...)
		}
		before := c.do("get_status", obj{"device_id": "gpu-0", "include_fragmentation": true})
		c.want(c.do("defragment", obj{"device_id": "gpu-0", "dry_run": true}), "plan.outcome", "granted")
		r := c.do("defragment", obj{"device_id": "gpu-0", "strategy": "full", "wait_ms": 20000})
		c.want(r, "before.segments", num(before, "fragmentation.segments"), "before.largest_free_bytes", num(before, "fragmentation.largest_free_bytes"))
		if num(r, "segments_released") < 1 || num(r, "released_bytes") < 2*mib || num(r, "moved_bytes") < 290_000 || r["efficiency"] == nil {
			c.t.Errorf("defragment answered %v", r)
		}
		for g, want := range content {
			c.holds(g, want)
		}
		c.await("moved", "allocation", nil)
		c.await("started", "optimization", nil)
		c.await("completed", "optimization", func(d obj) bool { return num(d, "freed_bytes") == num(r, "released_bytes") })
		c.want(c.do("defragment", obj{"device_id": "gpu-0"}), "moved_bytes", 0, "efficiency", nil)
		c.fails("INVALID_DEVICE", "defragment", obj{"device_id": "gpu-9"})
	})
}

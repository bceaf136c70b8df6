package contract

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
)

// The same request_id with the same content has one effect and the first outcome.
func TestRepeatedRequestsHaveOneEffect(t *testing.T) {
	inBoth(t, func(c *caller) {
		in := obj{"device_id": "gpu-0", "size_bytes": 4 * mib, "memory_type": "vram"}
		first := c.do("allocate", in, id("a"))
		// Aliases, units, defaults and wait_ms make no difference.
		again := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 4 * mib, "allocation_type": 2, "class": "scratch", "timeout_seconds": 30,
			"wait_ms": 77, "purpose": ""}, id("a"))
		c.want(first, "replayed", nil)
		c.want(again, "replayed", true, "allocation_id", text(first, "allocation_id"), "allocated_at", text(first, "allocated_at"), "success", true)
		if text(again, "handle.claim") == text(first, "handle.claim") {
			c.t.Error("the replay has the first one's claim")
		}
		c.unmaps2(text(first, "handle.claim"), text(again, "handle.claim"))
		c.want(c.memory(), "used_memory", 4*mib)
		c.fails("REQUEST_ID_REUSED", "allocate", obj{"device_id": "gpu-0", "size_bytes": 6 * mib}, id("a"))
		c.fails("REQUEST_ID_REUSED", "deallocate", obj{"allocation_id": text(first, "allocation_id")}, id("a"))
		// A dry run is not kept, nor a failure.
		c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 2 * mib, "dry_run": true}, id("b"))
		c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": 2048 * mib}, id("b"))
		b := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 2 * mib}, id("b"))
		c.want(b, "replayed", nil)

		gone := c.do("deallocate", obj{"allocation_id": text(first, "allocation_id")}, id("free"))
		twice := c.do("deallocate", obj{"allocation_id": text(first, "allocation_id")}, id("free"))
		c.want(twice, "replayed", true, "freed_bytes", num(gone, "freed_bytes"), "confirmed", true)
		c.fails("ALLOCATION_NOT_FOUND", "deallocate", obj{"allocation_id": text(first, "allocation_id")}, id("another"))
		// The outcome of an allocate whose grant has gone is still told, without a handle.
		c.want(c.do("allocate", in, id("a")), "replayed", true, "handle", nil, "allocation_id", text(first, "allocation_id"))

		for _, cmd := range []struct {
			action string
			in     obj
		}{
			{"set_limits", obj{"device_id": "gpu-0", "limit_bytes": 1000 * mib}},
			{"renew", obj{"allocation_ids": []any{text(b, "allocation_id")}, "lease_seconds": 1000}},
			{"load_model", obj{"name": "m", "path": c.hollow("m", 4), "wait_ms": 10_000}},
			{"acquire_model", obj{"name": "m", "lease_seconds": 50}},
			{"unload_model", obj{"name": "m", "force": true}},
		} {
			one := c.do(cmd.action, cmd.in, id(cmd.action))
			two := c.do(cmd.action, cmd.in, id(cmd.action))
			c.want(two, "replayed", true, "freed_bytes", one["freed_bytes"], "reference_id", one["reference_id"], "allocation_ids", one["allocation_ids"])
		}
		// A replay is told in whatever format is asked for: sameness is of content, not of bytes.
		other := *c
		other.f = formats[0]
		if c.f.name == "json" {
			other.f = formats[1]
		}
		c.want(other.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 2 * mib}, id("b")), "replayed", true, "allocation_id", text(b, "allocation_id"))
	})
}

// unmaps2 shows that both claims open the same grant.
func (c *caller) unmaps2(first, second string) {
	c.t.Helper()
	one, two := c.session(nil), c.session(nil)
	a := c.maps(one, obj{"claim": first}, data.ReadOnly)
	b := c.maps(two, obj{"claim": second}, data.ReadOnly)
	if a.AllocationID != b.AllocationID {
		c.t.Errorf("claims on %s and %s", a.AllocationID, b.AllocationID)
	}
	c.unmaps(one, a)
	c.unmaps(two, b)
}

// A repeated request joins the one that still runs, and both are told when it is done.
func TestRepeatedRequestJoinsTheRunningOne(t *testing.T) {
	inBoth(t, func(c *caller) {
		all := c.grant(1024 * mib)
		in := obj{"device_id": "gpu-0", "size_bytes": 4 * mib, "wait_ms": 15_000}
		replies := make(chan obj, 3)
		for range 3 {
			go func() { replies <- c.do("allocate", in, id("same")) }()
		}
		c.await("queued", "allocation", of("request_id", "same"))
		// One that does not wait is told that it is queued, with the same operation.
		p := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 4 * mib, "wait_ms": 1}, id("same"))
		c.want(p, "status", "queued", "replayed", true)
		c.want(c.do("get_queue", obj{}), "waiting.0.operation_id", text(p, "operation_id"), "waiting.1", nil)
		c.fails("REQUEST_ID_REUSED", "allocate", obj{"device_id": "gpu-0", "size_bytes": 8 * mib}, id("same"))
		c.release(all)
		ids := map[string]int{}
		replayed := 0
		for range 3 {
			r := <-replies
			ids[text(r, "allocation_id")]++
			if r["replayed"] == true {
				replayed++
			}
		}
		if len(ids) != 1 || replayed != 2 {
			c.t.Errorf("grants %v, replayed %d", ids, replayed)
		}
		c.want(c.memory(), "used_memory", 4*mib)
	})
}

func TestCommandWithoutReplySubject(t *testing.T) {
	inBoth(t, func(c *caller) {
		tell := func(action string, in obj, rid string) {
			b, err := c.f.encode(obj{"request_id": rid, "data": in})
			if err != nil {
				c.t.Fatal(err)
			}
			if err := c.nc.PublishMsg(&nats.Msg{Subject: "memory." + action, Data: b, Header: nats.Header{"Content-Type": {c.f.mime}}}); err != nil {
				c.t.Fatal(err)
			}
		}
		tell("allocate", obj{"device_id": "gpu-0", "size_bytes": 4 * mib}, "told")
		e := c.await("completed", "events.command.test", of("request_id", "told"))
		c.want(e.data, "action", "allocate", "tenant", "default", "result.success", true, "result.device_id", "gpu-0")
		if text(e.data, "result.allocation_id") == "" {
			c.t.Errorf("no id in %v", e.data)
		}
		h := c.do("get_handle", obj{"allocation_id": text(e.data, "result.allocation_id")})
		c.maps(c.session(nil), h["handle"], data.ReadOnly)
		tell("allocate", obj{"device_id": "nowhere", "size_bytes": 4}, "bad")
		e = c.await("failed", "events.command.test", of("request_id", "bad"))
		c.want(e.data, "error_code", "INVALID_DEVICE", "status_code", 404, "action", "allocate", "result", nil)
		tell("allocate", obj{"size": 4}, "worse")
		c.want(c.await("failed", "events.command.test", of("request_id", "worse")).data, "error_code", "INVALID_REQUEST", "details.field", "size")
	})
}

// A grant whose answer nobody hears is taken back, and a retry makes it anew.
func TestUnheardGrantIsUndone(t *testing.T) {
	inBoth(t, func(c *caller) {
		b, err := c.f.encode(obj{"request_id": "lost", "data": obj{"device_id": "gpu-0", "size_bytes": 4 * mib}})
		if err != nil {
			c.t.Fatal(err)
		}
		if err := c.nc.PublishMsg(&nats.Msg{Subject: "memory.allocate", Reply: nats.NewInbox(), Data: b, Header: nats.Header{"Content-Type": {c.f.mime}}}); err != nil {
			c.t.Fatal(err)
		}
		made := c.await("allocated", "allocation", of("request_id", "lost"))
		gone := c.await("expired", "allocation", of("allocation_id", text(made.data, "allocation_id")))
		c.want(gone.data, "reason", "nobody heard the answer")
		c.want(c.memory(), "used_memory", 0)
		r := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 4 * mib}, id("lost"))
		c.want(r, "replayed", nil)
		if text(r, "allocation_id") == text(made.data, "allocation_id") {
			c.t.Error("the retry got the grant that was undone")
		}
	})
}

// A queued grant that nobody fetches or maps goes back; one that is fetched stays.
func TestQueuedGrantThatIsNeverFetched(t *testing.T) {
	inBoth(t, func(c *caller) {
		all := c.grant(1024 * mib)
		in := obj{"device_id": "gpu-0", "size_bytes": 4 * mib, "wait_ms": 0}
		lost, kept := c.do("allocate", in, id("lost")), c.do("allocate", in, id("kept"))
		c.want(lost, "status", "queued")
		c.release(all)
		op := c.do("get_operation", obj{"operation_id": text(kept, "operation_id"), "wait_ms": 10_000})
		c.want(op, "operation.status", "completed")
		e := c.await("expired", "allocation", nil)
		if text(e.data, "allocation_id") == text(op, "operation.result.allocation_id") {
			c.t.Error("the grant that was fetched went back")
		}
		c.want(c.do("get_operation", obj{"operation_id": text(lost, "operation_id"), "wait_ms": 1000}), "operation.status", "failed", "operation.error.error_code", "STALE_HANDLE")
		c.want(c.memory(), "used_memory", 4*mib)
		c.want(c.do("allocate", in, id("lost")), "replayed", nil, "success", true)
	}, nodetest.Set(func(c *node.Config) { c.UndoAfter = 100 * time.Millisecond }))
}

func TestOperations(t *testing.T) {
	inBoth(t, func(c *caller) {
		for _, action := range []string{"get_operation", "cancel_operation"} {
			c.fails("OPERATION_NOT_FOUND", action, obj{"operation_id": "test.nothing"})
			c.fails("OPERATION_NOT_FOUND", action, obj{"request_id": "nothing"})
			c.fails("INVALID_REQUEST", action, obj{})
			c.fails("INVALID_REQUEST", action, obj{"request_id": "a", "operation_id": "b"})
		}
		all := c.grant(1024 * mib)
		p := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 4 * mib, "wait_ms": 10}, id("q"))
		begun := time.Now()
		op := c.do("get_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 30})
		if took := time.Since(begun); took < 30*time.Millisecond {
			c.t.Errorf("waited %v, not 30 ms", took)
		}
		c.want(op, "operation.status", "queued", "operation.position", 1, "operation.result", nil)
		c.want(c.do("cancel_operation", obj{"operation_id": text(p, "operation_id"), "dry_run": true}), "plan.outcome", "granted")
		c.want(c.do("get_queue", obj{}), "waiting.0.operation_id", text(p, "operation_id"))
		c.want(c.do("cancel_operation", obj{"operation_id": text(p, "operation_id")}), "operation.status", "cancelled")
		c.want(c.await("refused", "allocation", of("request_id", "q")).data, "error_code", "CANCELLED")
		c.release(all)
		c.want(c.do("cancel_operation", obj{"operation_id": text(p, "operation_id")}), "operation.status", "cancelled")
		c.want(c.memory(), "used_memory", 0)
	})
}

func TestSetLimits(t *testing.T) {
	inBoth(t, func(c *caller) {
		g := c.grant(600 * mib)
		r := c.do("set_limits", obj{"device_id": "gpu-0", "limit_bytes": 800 * mib, "model_limit_mb": 99.5, "reserve_bytes": 24 * mib,
			"thresholds": obj{"moderate": 50, "high": obj{"enter": 60, "leave": 58}, "critical": 90}})
		c.want(r, "device_id", "gpu-0", "limit_bytes", 800*mib, "model_limit_bytes", int(99.5*mib), "model_limit_mb", 99.5, "reserve_bytes", 24*mib,
			"thresholds.moderate.enter", 50, "thresholds.moderate.leave", 45, "thresholds.high.enter", 60, "thresholds.high.leave", 58,
			"thresholds.critical.enter", 90, "thresholds.critical.leave", 86)
		c.want(c.await("pressure_changed", "pressure", of("pressure_level", "high")).data, "cause", "limit_change", "used_memory", 600*mib, "total_memory", 800*mib)
		// What is absent stays.
		c.want(c.do("set_limits", obj{"device_id": "gpu-0", "reserve_bytes": 0}), "limit_bytes", 800*mib, "thresholds.high.leave", 58, "model_limit_mb", 99.5)
		// Under what is used: nobody is evicted, but nothing more is granted.
		c.want(c.do("set_limits", obj{"device_id": "gpu-0", "limit_bytes": 500 * mib}), "limit_bytes", 500*mib)
		c.want(c.memory(), "used_memory", 600*mib, "total_memory", 500*mib, "available_memory", 0, "usage_percentage", 120)
		c.want(c.await("pressure_changed", "pressure", of("pressure_level", "critical")).data, "cause", "limit_change", "utilization_percentage", 120)
		c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": 2 * mib, "timeout_seconds": 0})
		c.do("get_allocation", obj{"allocation_id": text(g, "allocation_id")})
		// One who waits is refused when a limit makes its wish impossible.
		p := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 450 * mib, "wait_ms": 0})
		c.want(p, "status", "queued")
		c.do("set_limits", obj{"device_id": "gpu-0", "limit_bytes": 400 * mib})
		op := c.do("get_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 10_000})
		c.want(op, "operation.status", "failed", "operation.error.error_code", "OUT_OF_MEMORY")
		c.release(g)
		c.want(c.do("set_limits", obj{"device_id": "gpu-0", "limit_bytes": 4096 * mib}), "limit_bytes", 1024*mib)

		for _, bad := range []struct {
			in    obj
			field string
		}{
			{obj{"thresholds": obj{"moderate": 90, "high": 80}}, "thresholds.high"},
			{obj{"thresholds": obj{"high": obj{"enter": 60, "leave": 61}}}, "thresholds.high"},
			{obj{"thresholds": obj{"moderate": 95}}, "thresholds"},
			{obj{"thresholds": obj{"high": 101}}, ""},
			{obj{"thresholds": obj{"moderate": 95}, "limit_bytes": 100 * mib}, "thresholds"}, // all or nothing
			{obj{"reserve_bytes": 1024 * mib}, "reserve_bytes"},
			{obj{"limit_bytes": -1}, "limit_bytes"},
			{obj{"model_limit_bytes": 1, "model_limit_mb": 1}, ""},
		} {
			bad.in["device_id"] = "gpu-0"
			d := c.fails("INVALID_REQUEST", "set_limits", bad.in)
			if bad.field != "" {
				c.want(d, "field", bad.field)
			}
			bad.in["dry_run"] = true
			if a := c.ask("set_limits", bad.in); a.ok && text(a.data, "plan.outcome") != "refused" {
				c.t.Errorf("the dry run of %v is %v", bad.in, a.data)
			}
		}
		c.want(c.do("set_limits", obj{"device_id": "gpu-0"}), "limit_bytes", 1024*mib, "thresholds.high.enter", 60)
		c.fails("INVALID_DEVICE", "set_limits", obj{"device_id": "x"})
	})
}

// What a dry run foresees is then what happens, and the dry run itself does nothing.
func TestDryRunForeseesTheOutcome(t *testing.T) {
	inBoth(t, func(c *caller) {
		state := func() string {
			q := c.do("get_queue", obj{})
			return fmt.Sprint(c.memory()["used_memory"], size(q, "waiting"), text(q, "waiting.0.operation_id"), size(c.do("get_allocations", obj{}), "allocations"))
		}
		foresee := func(outcome, action string, in obj) obj {
			c.t.Helper()
			before := state()
			dry := obj{"dry_run": true}
			for k, v := range in {
				dry[k] = v
			}
			r := c.do(action, dry)
			c.want(r, "plan.outcome", outcome)
			if text(r, "plan.reason") == "" {
				c.t.Errorf("%s: a plan without a reason: %v", action, r)
			}
			if after := state(); after != before {
				c.t.Errorf("the dry run of %s changed %s to %s", action, before, after)
			}
			return r
		}
		in := obj{"device_id": "gpu-0", "size_bytes": 1000 * mib}
		foresee("granted", "allocate", in)
		g := c.do("allocate", in)
		foresee("queued", "allocate", in)
		q := c.do("allocate", obj{"device_id": "gpu-0", "size_bytes": 1000 * mib, "wait_ms": 0})
		c.want(foresee("queued", "allocate", in), "plan.position", 2)
		foresee("refused", "allocate", obj{"device_id": "gpu-0", "size_bytes": 1000 * mib, "timeout_seconds": 0})
		c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": 1000 * mib, "timeout_seconds": 0})
		foresee("refused", "allocate", obj{"device_id": "gpu-0", "size_bytes": 2000 * mib})
		foresee("granted", "cancel_operation", obj{"operation_id": text(q, "operation_id")})
		c.do("cancel_operation", obj{"operation_id": text(q, "operation_id")})
		m := obj{"name": "m", "path": c.hollow("m", 8), "timeout_seconds": 0, "wait_ms": 10_000, "pinned": true} // else pressure takes it
		foresee("granted", "load_model", m)
		c.do("load_model", m)
		foresee("granted", "load_model", m)
		foresee("granted", "acquire_model", obj{"name": "m", "lease_seconds": 9})
		ref := c.do("acquire_model", obj{"name": "m", "lease_seconds": 9})
		foresee("refused", "unload_model", obj{"name": "m"})
		foresee("granted", "unload_model", obj{"name": "m", "force": true})
		foresee("granted", "release_model", obj{"reference_id": text(ref, "reference_id")})
		c.do("release_model", obj{"reference_id": text(ref, "reference_id")})
		big := obj{"name": "big", "path": c.hollow("big", 28), "timeout_seconds": 0, "wait_ms": 10_000}
		foresee("refused", "load_model", big)
		c.fails("OUT_OF_MEMORY", "load_model", big)
		foresee("granted", "set_limits", obj{"device_id": "gpu-0", "limit_bytes": 10 * mib})
		foresee("granted", "renew", obj{"allocation_ids": []any{text(g, "allocation_id")}, "lease_seconds": 9})
		foresee("granted", "deallocate", obj{"allocation_id": text(g, "allocation_id")})
		// What is not there is not there for a dry run either.
		c.fails("ALLOCATION_NOT_FOUND", "deallocate", obj{"allocation_id": "x", "dry_run": true})
		c.fails("ALLOCATION_NOT_FOUND", "renew", obj{"allocation_ids": []any{"x"}, "lease_seconds": 9, "dry_run": true})
		c.fails("MODEL_NOT_FOUND", "unload_model", obj{"name": "x", "dry_run": true})
		c.fails("MODEL_NOT_FOUND", "acquire_model", obj{"name": "x", "lease_seconds": 9, "dry_run": true})
		c.fails("FILE_NOT_READABLE", "load_model", obj{"name": "x", "path": "/nowhere", "dry_run": true})
	})
}

func TestHeartbeatAndNodeEvents(t *testing.T) {
	t.Parallel()
	c := start(t, formats[0])
	sub, err := c.nc.SubscribeSync("memory.heartbeat.test")
	if err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	v, err := decodeJSON(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	c.want(v, "event", "heartbeat", "node", "test", "boot_id", c.n.Info().BootID, "data.devices.0.device_id", "gpu-0", "data.devices.0.pressure_level", "low",
		"data.devices.0.sequence", 0)
}

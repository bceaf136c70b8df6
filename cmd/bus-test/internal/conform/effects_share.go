package conform

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/consumer"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// shareEffects are of what several processes have of one memory: revocation, consumers that
// die, files that clients offer.
func (c caller) shareEffects(add adder) {
	c.revokeEffects(add)
	if c.ram != "" {
		c.deathEffects(add)
	}
	if c.modelPath != "" {
		c.offerEffects(add)
	}
}

// sharer is a session of a check's own that hears revocations.
type sharer struct {
	*data.Client
	heard chan data.Revocation
	heed  chan struct{} // closed when it lets go
}

// share opens a session; it lets go of what is revoked at once, or when heed is closed.
func (c caller) share(heeds bool) *sharer {
	s := &sharer{heard: make(chan data.Revocation, 8), heed: make(chan struct{})}
	if heeds {
		close(s.heed)
	}
	var err error
	s.Client, err = data.Dial(c.ctx, data.Config{SocketPath: c.socket, Name: "bus-test sharer", OnRevoke: func(r data.Revocation) {
		s.heard <- r
		<-s.heed
	}})
	if err != nil {
		fail("a session: %v", err)
	}
	return s
}

// end lets everything go and ends the session.
func (s *sharer) end() {
	select {
	case <-s.heed:
	default:
		close(s.heed)
	}
	_ = s.Close() // what it holds is looked at by the check
}

func (s *sharer) maps(c caller, claim string, mode data.Mode) *data.Mapping {
	ctx, stop := context.WithTimeout(c.ctx, patience)
	defer stop()
	m, err := s.Map(ctx, claim, mode)
	if err != nil {
		fail("mapping: %v", err)
	}
	return m
}

// revoked waits for the node's wish.
func (s *sharer) revoked(allocation string) data.Revocation {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case r := <-s.heard:
		if r.AllocationID != allocation || r.Reason == "" || r.Deadline < 0 {
			fail("the revocation %+v, of %s", r, allocation)
		}
		return r
	case <-t.C:
		fail("no revocation of %s was pushed", allocation)
	}
	return data.Revocation{}
}

// quiet wants no revocation to have come; what was sent before an answer to a ping has come.
func (s *sharer) quiet(c caller) {
	if err := s.Ping(c.ctx); err != nil {
		fail("%v", err)
	}
	select {
	case r := <-s.heard:
		fail("the revocation %+v", r)
	default:
	}
}

// given is a grant that a sharer maps.
func (c caller) given(s *sharer, device string, bytes int64) (id string, m *data.Mapping) {
	g := c.grant(device, bytes)
	return text(g, "allocation_id"), s.maps(c, text(g, "handle.claim"), data.ReadWrite)
}

func (c caller) revokeEffects(add adder) {
	add(schemas.ActionDeallocate, "by-force-is-pushed-with-deadline-and-reason-and-acknowledged", func() {
		s := c.share(true)
		defer s.end()
		id, _ := c.given(s, c.device, 4*mib)
		bytes := num(c.do(schemas.ActionGetAllocation, object{"allocation_id": id}), "allocation.granted_bytes")
		r := c.do(schemas.ActionDeallocate, object{"allocation_id": id, "force": true, "deadline_ms": 9000, "wait_ms": waitFor})
		if got := s.revoked(id); got.Deadline > 9*time.Second || got.Deadline < time.Second {
			fail("the deadline is %v", got.Deadline)
		}
		want(r, "confirmed", true, "zombie_bytes", 0, "freed_bytes", bytes)
		c.await(schemas.EventDeallocated, "events.allocation", of("allocation_id", id))
	})
	add(schemas.ActionDeallocate, "without-force-revokes-nothing → ALLOCATION_IN_USE", func() {
		s := c.share(true)
		defer s.end()
		id, m := c.given(s, c.device, mib)
		fill(m, seed)
		c.ask(schemas.ActionDeallocate, object{"allocation_id": id}).expect(schemas.CodeAllocationInUse)
		s.quiet(c)
		c.secondSees(id, pattern(seed, mib))
	})
	add(schemas.ActionDeallocate, "dry_run-revokes-nothing", func() {
		s := c.share(true)
		defer s.end()
		id, _ := c.given(s, c.device, mib)
		want(c.do(schemas.ActionDeallocate, object{"allocation_id": id, "force": true, "dry_run": true}), "plan.outcome", "granted")
		s.quiet(c)
		want(c.do(schemas.ActionGetAllocation, object{"allocation_id": id}), "allocation.status", "active")
	})
	add(schemas.ActionDeallocate, "past-its-deadline-the-bytes-are-zombies-of-that-process", func() {
		s := c.share(false)
		defer s.end()
		id, _ := c.given(s, c.device, 4*mib)
		r := c.do(schemas.ActionDeallocate, object{"allocation_id": id, "force": true, "deadline_ms": 1, "wait_ms": waitFor})
		bytes := num(c.do(schemas.ActionGetAllocation, object{"allocation_id": id}), "allocation.granted_bytes")
		want(r, "confirmed", false, "freed_bytes", 0, "zombie_bytes", bytes)
		s.revoked(id)
		c.await(schemas.EventZombie, "events.allocation", func(d object) bool {
			return text(d, "allocation_id") == id && num(d, "pid") == int64(os.Getpid())
		})
		want(c.memory(c.device), "zombie_memory", bytes)
		want(c.do(schemas.ActionGetAllocation, object{"allocation_id": id}), "allocation.status", "zombie", "allocation.mapped_by.0.pid", os.Getpid())
		close(s.heed)
		c.await(schemas.EventConfirmed, "events.allocation", of("allocation_id", id))
		c.eventually(func() string { return zero(c.memory(c.device), "zombie_memory") })
		c.ask(schemas.ActionGetAllocation, object{"allocation_id": id}).expect(schemas.CodeAllocationNotFound)
	})
	if c.modelPath == "" {
		return
	}
	add(schemas.ActionUnloadModel, "by-force-asks-its-readers-and-waits-for-them", func() {
		s := c.share(true)
		defer s.end()
		in := object{"name": modelName, "path": c.modelPath, "device_id": c.device, "wait_ms": waitFor}
		id := s.maps(c, text(c.do(schemas.ActionLoadModel, in), "handle.claim"), data.ReadOnly).AllocationID
		c.ask(schemas.ActionUnloadModel, object{"name": modelName}).expect(schemas.CodeModelInUse)
		s.quiet(c)
		want(c.do(schemas.ActionUnloadModel, object{"name": modelName, "force": true, "wait_ms": waitFor}), "confirmed", true, "zombie_bytes", 0, "unloaded", true)
		s.revoked(id)
		c.await(schemas.EventModelReleaseRequested, "events.model", func(d object) bool { return text(d, "name") == modelName && num(d, "readers") == 1 })
	})
}

func zero(v any, path string) string {
	if n := num(v, path); n != 0 {
		return fmt.Sprintf("%s is %d", path, n)
	}
	return ""
}

// shared is what the kernel counts as a process's share of memory that others have too.
func shared(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		fail("%v", err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "RssShmem: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	fail("the kernel does not tell RssShmem of %d", pid)
	return 0
}

// deathEffects are of consumers that are killed.
func (c caller) deathEffects(add adder) {
	const bytes = 24 * mib
	mapped := func(g object) *consumer.Process {
		p, err := consumer.Start(c.program, c.socket)
		if err != nil {
			fail("a consumer: %v", err)
		}
		if err := p.Map(text(g, "handle.claim"), 1); err != nil {
			p.Reap()
			fail("the consumer maps: %v", err)
		}
		return p
	}
	killed := func(p *consumer.Process) {
		defer p.Reap()
		if err := p.Kill(); err != nil {
			fail("%v", err)
		}
	}
	add(schemas.ActionAllocate, "what-a-killed-consumer-held-is-back-by-the-kernel's-count", func() {
		pooled := num(c.memory(c.ram), "pooled_memory")
		before := c.blocks()
		g := c.grant(c.ram, bytes)
		id := text(g, "allocation_id")
		p := mapped(g)
		if got := shared(p.Pid()); got < bytes {
			fail("the consumer wrote to %d bytes, and the kernel counts %d of it", bytes, got)
		}
		if grew := c.blocks() - before + pooled; grew < bytes {
			fail("the kernel's blocks grew by %d", grew)
		}
		want(c.do(schemas.ActionGetAllocation, object{"allocation_id": id}), "allocation.mapped_by.0.pid", p.Pid(), "allocation.owner.session_id", p.Session)
		killed(p)
		e := c.await(schemas.EventDeallocated, "events.allocation", of("allocation_id", id))
		want(e.data, "reason", "its owner's session ended", "session_id", p.Session)
		c.eventually(func() string {
			if got := c.ask(schemas.ActionGetAllocation, object{"allocation_id": id}); got.code != schemas.CodeAllocationNotFound {
				return got.String()
			}
			if now, kept := c.blocks(), num(c.memory(c.ram), "pooled_memory"); now-before > kept-pooled+bytes/2 {
				return fmt.Sprintf("the kernel has %d bytes more than before, %d more are pooled", now-before, kept-pooled)
			}
			return ""
		})
	})
	add(schemas.ActionAllocate, "who-waits-gets-what-a-killed-consumer-held", func() {
		g := c.rest(c.ram)
		p := mapped(g)
		op := text(c.ask(schemas.ActionAllocate, object{"device_id": c.ram, "size_bytes": bytes, "wait_ms": 0, "timeout_seconds": 60}).expect("").data, "operation_id")
		killed(p)
		r := c.do(schemas.ActionGetOperation, object{"operation_id": op, "wait_ms": waitFor})
		want(r, "operation.status", "completed", "operation.result.allocation.status", "active")
		m := c.maps(at(r, "operation.result").(object), data.ReadOnly)
		for _, s := range m.Segments {
			for i, b := range s.Bytes {
				if b != 0 {
					fail("byte %d of what the dead had is %d", i, b)
				}
			}
		}
	})
	add(schemas.ActionAllocate, "what-is-persistent-outlives-its-killed-consumer", func() {
		g := c.grant(c.ram, mib, "class", "state")
		id := text(g, "allocation_id")
		p := mapped(g)
		if err := p.Fill(id, seed); err != nil {
			fail("%v", err)
		}
		killed(p)
		c.eventually(func() string {
			r := c.do(schemas.ActionGetAllocation, object{"allocation_id": id})
			if len(list(r, "allocation.mapped_by")) > 0 || text(r, "allocation.status") != "active" {
				return fmt.Sprint(r)
			}
			return ""
		})
		c.secondSees(id, pattern(seed, mib))
	})
}

// offerEffects are of files that clients bring as descriptors.
func (c caller) offerEffects(add adder) {
	// hidden is the model's file where the node may not look for itself.
	hidden := func() *os.File {
		dir := filepath.Join(c.dir, "hidden")
		path := filepath.Join(dir, "offered.safetensors")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			fail("%v", err)
		}
		if err := c.model.WriteSafetensors(path); err != nil {
			fail("%v", err)
		}
		f, err := os.Open(path)
		if err != nil {
			fail("%v", err)
		}
		return f
	}
	offered := func(s *sharer, f *os.File) string {
		claim, err := s.Offer(c.ctx, "mine", f)
		if err != nil || claim == "" {
			fail("offer: %q, %v", claim, err)
		}
		return claim
	}
	load := func(claim string) object {
		return object{"name": modelName, "file_claim": claim, "device_id": c.device, "wait_ms": waitFor}
	}
	add(schemas.ActionLoadModel, "of-an-offered-file-has-its-bytes", func() {
		f, s := hidden(), c.share(true)
		defer f.Close()
		defer s.end()
		c.ask(schemas.ActionLoadModel, object{"name": modelName, "path": f.Name(), "device_id": c.device}).expect(schemas.CodeFileNotReadable)
		r := c.do(schemas.ActionLoadModel, load(offered(s, f)))
		want(r, "loaded", true, "source_tier", "disk")
		m := c.maps(r, data.ReadOnly)
		for i, t := range c.model.Tensors {
			if err := c.model.Check(i, 0, m.Tensor(t.Name)); err != nil {
				fail("%v", err)
			}
		}
	})
	add(schemas.ActionLoadModel, "a-file_claim-works-once → STALE_HANDLE", func() {
		f, s := hidden(), c.share(true)
		defer f.Close()
		defer s.end()
		claim := offered(s, f)
		c.do(schemas.ActionLoadModel, load(claim))
		got := c.ask(schemas.ActionLoadModel, with(load(claim), "name", noModel))
		got.expect(schemas.CodeStaleHandle).names("file_claim")
	})
	add(schemas.ActionLoadModel, "a-file_claim-ends-with-its-session → STALE_HANDLE", func() {
		f, s := hidden(), c.share(true)
		defer f.Close()
		claim := offered(s, f)
		s.end()
		c.eventually(func() string {
			got := c.ask(schemas.ActionLoadModel, with(load(claim), "dry_run", true))
			return differs(string(got.code), string(schemas.CodeStaleHandle))
		})
	})
	add(schemas.ActionLoadModel, "an-offered-folder-is-refused", func() {
		s := c.share(true)
		defer s.end()
		f, err := os.Open(c.dir)
		if err != nil {
			fail("%v", err)
		}
		defer f.Close()
		if claim, err := s.Offer(c.ctx, "folder", f); err == nil || !strings.Contains(err.Error(), string(schemas.CodeFileNotReadable)) {
			fail("%q, %v", claim, err)
		}
	})
}

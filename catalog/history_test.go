package catalog_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// house is a catalog and two devices, wired as actors wire them: what one says to
// another is a message, and messages to one receiver come in order, at any time.
type house struct {
	t       *rapid.T
	core    *catalog.Catalog
	mem     []byte
	devices map[string]*ledgertest.Machine
	names   []string
	now     ledger.Now
	mail    [3][]func() // to the catalog, to each device
	work    []func()    // of workers, in any order
	n       int
	owed    map[any]string
	final   map[any]catalog.Outcome
	tickets map[*catalog.Copy]ledger.Ticket
	files   map[string]int // contents by path
	refs    []string
	log     []catalog.Event
	sealed  map[uuid.UUID]string // copies that are usable, by grant, with their device
	left    *crash

	demoting int // the last unload to main memory
	// descending are copies that were ordered to go by way of main memory, until their release
	// is told or they are kept.
	descending map[uuid.UUID]bool
}

func newHouse(t *rapid.T) *house {
	h := &house{t: t, mem: make([]byte, 1<<20), devices: map[string]*ledgertest.Machine{}, names: []string{"ram-0", "sim-0"},
		owed: map[any]string{}, final: map[any]catalog.Outcome{}, tickets: map[*catalog.Copy]ledger.Ticket{}, files: map[string]int{}, sealed: map[uuid.UUID]string{}, descending: map[uuid.UUID]bool{}}
	h.now = ledger.Now{Boot: clock.Instant(time.Hour), Wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for _, name := range h.names {
		cfg := ledgertest.Settings(500000)
		cfg.Device = name
		m, err := ledgertest.NewMachine(cfg, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		h.devices[name] = m
	}
	region, err := store.Format(h.mem, "pool")
	if err != nil {
		t.Fatal(err)
	}
	h.core = catalog.New(region, policy(t), uuid.New)
	h.core.Warm("ram-0")
	h.core.Below("gpu-0", "ram-0")
	return h
}

func policy(t interface{ Fatal(...any) }) eviction.Policy {
	p, err := eviction.New("")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (h *house) toCatalog(f func()) { h.mail[0] = append(h.mail[0], f) }
func (h *house) toDevice(name string, f func()) {
	for i, n := range h.names {
		if n == name {
			h.mail[i+1] = append(h.mail[i+1], f)
		}
	}
}

// call calls the catalog and carries its effects out.
func (h *house) call(f func()) {
	f()
	if err := h.core.Check(); err != nil {
		h.t.Fatal(err)
	}
	clear(h.sealed)
	for _, tenant := range []string{"red", "blue"} {
		h.core.Models(tenant, func(m *catalog.Model) {
			m.Copies(func(cp *catalog.Copy) {
				if cp.State == catalog.Sealed {
					h.sealed[cp.Grant] = cp.Device
				}
			})
		})
	}
	e := *h.core.Take()
	h.log = append(h.log, e.Events...)
	for _, o := range e.Outcomes {
		if o.Kind == catalog.OutcomeProgress {
			continue
		}
		if h.owed[o.Ref] == "" {
			h.t.Fatalf("answered twice, or unasked: %+v", o)
		}
		delete(h.owed, o.Ref)
		h.final[o.Ref] = o
		if o.Kind == catalog.OutcomeLoaded && (o.Copy.State != catalog.Sealed || o.Copy.Grant == uuid.Nil) {
			h.t.Fatalf("loaded, and it is %s", o.Copy.State)
		}
		if o.Kind == catalog.OutcomeAcquired {
			h.refs = append(h.refs, o.Reference.ID)
		}
	}
	for _, id := range e.Kept {
		if !h.descending[id] {
			h.t.Fatal("kept, and it was not to go")
		}
		delete(h.descending, id)
	}
	for _, s := range e.Steps {
		h.step(s)
	}
	for _, d := range e.Devices {
		bytes := h.core.Reclaimable(d)
		h.toDevice(d, func() { h.device(d, func(c *ledger.Device) { c.SetReclaimable(bytes, h.now) }) })
	}
}

func (h *house) step(s catalog.Step) {
	cp := s.Copy
	switch s.Kind {
	case catalog.StepInspect:
		r := *s.Request
		content := h.files[r.Path]
		h.work = append(h.work, func() {
			var fail *schemas.Error
			if rapid.IntRange(0, 9).Draw(h.t, "inspect") == 0 {
				fail = schemas.Errorf(schemas.CodeInvalidModel, "no model")
			}
			size := int64(110000 + 30000*(content%4))
			d := catalog.Description{Path: r.Path, ContentID: fmt.Sprint(r.Path, content), Bytes: size, Segments: []int64{30000, size - 30000}}
			h.toCatalog(func() { h.call(func() { h.core.Inspected(cp, &r, d, fail, h.now) }) })
		})
	case catalog.StepAllocate:
		m := cp.Model
		h.toDevice(cp.Device, func() {
			r := &ledger.Request{Ref: cp, Owner: ledger.Owner{Tenant: m.Tenant}, Class: ledger.ClassWeights, Segments: m.Segments, Model: m.Name,
				Persistent: true, Unclaimed: true, Patience: s.Patience, Modest: s.Modest, Awaits: s.Awaits}
			h.device(cp.Device, func(c *ledger.Device) {
				t := c.Allocate(r, h.now)
				h.toCatalog(func() {
					if cp.State == catalog.Loading && cp.Grant == uuid.Nil {
						h.tickets[cp] = t
					}
				})
			})
		})
	case catalog.StepFill:
		h.work = append(h.work, func() {
			var fail *schemas.Error
			if rapid.IntRange(0, 9).Draw(h.t, "fill") == 0 {
				fail = schemas.Errorf(schemas.CodeFileNotReadable, "gone")
			}
			h.toCatalog(func() {
				h.call(func() { h.core.Progress(cp, 1000, h.now) })
				h.call(func() { h.core.Filled(cp, fail, h.now) })
			})
		})
	case catalog.StepCopy:
		from, tenant := s.From, cp.Model.Tenant
		filled := func(fail *schemas.Error) { h.toCatalog(func() { h.call(func() { h.core.Filled(cp, fail, h.now) }) }) }
		h.toDevice(from.Device, func() {
			h.device(from.Device, func(c *ledger.Device) {
				if _, err := c.Hold(from.Grant, tenant, ledger.HoldRead); err != nil {
					filled(err)
					return
				}
				h.work = append(h.work, func() {
					var fail *schemas.Error
					if rapid.IntRange(0, 9).Draw(h.t, "copy") == 0 {
						fail = schemas.Errorf(schemas.CodeTransferFailed, "interrupted")
					}
					h.toDevice(from.Device, func() { h.device(from.Device, func(c *ledger.Device) { c.Unhold(from.Grant, ledger.HoldRead, h.now) }) })
					filled(fail)
				})
			})
		})
	case catalog.StepSeal:
		h.toDevice(cp.Device, func() { h.device(cp.Device, func(c *ledger.Device) { c.Seal(s.Grant) }) })
	case catalog.StepRelease:
		h.toDevice(cp.Device, func() {
			h.device(cp.Device, func(c *ledger.Device) {
				c.Release(ledger.ReleaseRequest{Ref: s.Grant, Grant: s.Grant, Tenant: cp.Model.Tenant, Force: s.Force, Deadline: s.Deadline, Why: s.Why}, h.now)
			})
		})
	case catalog.StepAbandon:
		if t, ok := h.tickets[cp]; ok {
			h.toDevice(cp.Device, func() {
				h.device(cp.Device, func(c *ledger.Device) { c.Cancel(t, schemas.Errorf(schemas.CodeCancelled, "%s", s.Why), h.now) })
			})
		}
	case catalog.StepStop:
	}
}

// device calls a device's core and passes its word on.
func (h *house) device(name string, f func(*ledger.Device)) {
	m := h.devices[name]
	m.Now = h.now
	if err := m.Call(func() { f(m.Core) }); err != nil {
		h.t.Fatal(err)
	}
	h.heard(name)
}

func (h *house) heard(name string) {
	m := h.devices[name]
	for _, o := range m.Heard {
		switch ref := o.Ref.(type) {
		case *catalog.Copy:
			h.answerLoad(ref, o)
		case uuid.UUID:
			h.answerRelease(ref, o)
		}
	}
	m.Heard = m.Heard[:0]
	for _, r := range m.Readers {
		h.toCatalog(func() { h.call(func() { h.core.Mapped(r, h.now) }) })
	}
	m.Readers = nil
	for _, w := range m.Wants {
		h.toCatalog(func() { h.makeRoom(name, w) })
	}
	m.Wants = nil
}

func (h *house) answerLoad(cp *catalog.Copy, o ledger.Outcome) {
	switch o.Kind {
	case ledger.OutcomeGranted:
		id, granted := o.Grant.ID, o.Grant.Granted
		h.toCatalog(func() { delete(h.tickets, cp); h.call(func() { h.core.Granted(cp, id, granted, nil, 0, h.now) }) })
	case ledger.OutcomeQueued:
		h.toCatalog(func() { h.call(func() { h.core.Waiting(cp, o.Position, o.Reason) }) })
	case ledger.OutcomeRefused:
		h.toCatalog(func() { delete(h.tickets, cp); h.call(func() { h.core.Refused(cp, o.Err, h.now) }) })
	}
}

func (h *house) answerRelease(grant uuid.UUID, o ledger.Outcome) {
	h.toCatalog(func() {
		delete(h.descending, grant)
		h.call(func() {
			switch {
			case o.Kind == ledger.OutcomeRefused && o.Err.Code == schemas.CodeAllocationNotFound:
				h.core.Released(grant, 0, 0, true, h.now)
			case o.Kind == ledger.OutcomeRefused:
				h.core.ReleaseRefused(grant, o.Err, h.now)
			default:
				h.core.Released(grant, o.Freed, o.Zombie, o.Confirmed, h.now)
			}
		})
	})
}

func (h *house) makeRoom(device string, w ledger.Want) {
	plan, whose := h.core.Plan(catalog.Want{Device: device, Bytes: w.Bytes}, h.now.Boot)
	for i, v := range plan.Victims {
		cp := whose[i]
		if rapid.Bool().Draw(h.t, "down") {
			began := false
			if rapid.Bool().Draw(h.t, "others give way") {
				_, others, _ := h.core.GiveWay(catalog.Descent{Copy: cp, To: "ram-0", Lacks: cp.Granted}, h.now.Boot)
				for _, other := range others {
					h.call(func() { h.core.Evict(other, "it gives way", h.now) })
				}
			}
			if h.call(func() { began = h.core.EvictDown(cp, "ram-0", v.Reason(), h.now) }); began {
				h.descending[cp.Grant] = true
				if rapid.IntRange(0, 3).Draw(h.t, "hurry") == 0 {
					h.call(func() { h.core.Hurry(device) })
				}
				continue
			}
		}
		h.call(func() { h.core.Evict(cp, v.Reason(), h.now) })
	}
	if plan.Shortfall > 0 {
		h.toDevice(device, func() { h.device(device, func(c *ledger.Device) { c.NoRoom(w.Ticket, h.now) }) })
	}
}

// turn lets one thing happen: a message, a worker, a driver.
func (h *house) turn() bool {
	var can []func()
	for i := range h.mail {
		if len(h.mail[i]) > 0 {
			can = append(can, func() { f := h.mail[i][0]; h.mail[i] = h.mail[i][1:]; f() })
		}
	}
	if len(h.work) > 0 {
		can = append(can, func() {
			i := rapid.IntRange(0, len(h.work)-1).Draw(h.t, "worker")
			f := h.work[i]
			h.work = append(h.work[:i:i], h.work[i+1:]...)
			f()
		})
	}
	for _, name := range h.names {
		if m := h.devices[name]; len(m.Tasks) > 0 {
			can = append(can, func() { h.driver(name, m) })
		}
	}
	if len(can) == 0 {
		return false
	}
	can[rapid.IntRange(0, len(can)-1).Draw(h.t, "turn")]()
	return true
}

func (h *house) driver(name string, m *ledgertest.Machine) {
	t := m.Tasks[rapid.IntRange(0, len(m.Tasks)-1).Draw(h.t, "task")]
	if !t.Done {
		var fail error
		if t.Kind == ledger.JobCreate && rapid.IntRange(0, 9).Draw(h.t, "driver") == 0 {
			fail = ledgertest.ErrDriver
		}
		m.Do(t, fail)
	}
	m.Now = h.now
	if err := m.Tell(t); err != nil {
		h.t.Fatal(err)
	}
	h.heard(name)
	if t.Kind == ledger.JobSeal {
		grant := t.Grant
		h.toCatalog(func() {
			if cp, ok := h.core.ByGrant(grant); ok {
				h.call(func() { h.core.SealDone(cp, nil, h.now) })
			}
		})
	}
}

func (h *house) rest() {
	for n := 0; h.turn(); n++ {
		if n > 20000 {
			h.t.Fatal("the house never comes to rest")
		}
	}
}

// end has everybody let go; every request is answered, and every model can be unloaded.
func (h *house) end() {
	h.rest()
	for _, name := range h.names {
		h.devices[name].Kill("s1")
		h.device(name, func(c *ledger.Device) { c.SessionDead("s1", h.now) })
	}
	h.call(func() { h.core.SessionGone("s1", h.now) })
	for range 4 {
		h.rest()
		h.now.Boot = h.now.Boot.Add(2 * time.Minute)
		for _, name := range h.names {
			h.device(name, func(c *ledger.Device) { c.Tick(h.now) })
		}
		h.call(func() { h.core.Tick(h.now) })
	}
	h.rest()
	if len(h.owed) > 0 {
		h.t.Fatalf("never answered: %v", h.owed)
	}
	if len(h.descending) > 0 {
		h.t.Fatalf("ordered to go, and nobody was told what became of them: %v", h.descending)
	}
	for _, tenant := range []string{"red", "blue"} {
		h.owed["end"] = "unload"
		h.call(func() {
			h.core.Unload(catalog.UnloadRequest{Ref: "end", Tenant: tenant, Name: "*", Force: true}, h.now)
		})
		h.rest()
	}
	for _, name := range h.names {
		if f := h.devices[name].Core.Figures(); f.Used != 0 || len(h.owed) > 0 {
			h.t.Fatalf("at the end %s has %+v, unanswered %v", name, f, h.owed)
		}
	}
}

// Loads, unloads, evictions, readers and changed files on two devices, with every message
// and result late at will: each request is answered once, and nothing stays behind.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHouse(t)
		for range rapid.IntRange(10, 80).Draw(t, "steps") {
			h.step1()
		}
		h.end()
	})
}

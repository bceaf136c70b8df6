package catalog_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
)

// crash is what is left of a house after some store to some region.
type crash struct {
	mem     []byte
	devices map[string]ledgertest.Cut
	sealed  map[uuid.UUID]string
	now     ledger.Now
}

// crashAt takes what is left after the n-th store to any of the house's regions.
func (h *house) crashAt(n int) {
	stores := 0
	watch := func() {
		if stores++; stores != n {
			return
		}
		h.left = &crash{mem: append([]byte(nil), h.mem...), devices: map[string]ledgertest.Cut{}, sealed: map[uuid.UUID]string{}, now: h.now}
		for id, d := range h.sealed {
			h.left.sealed[id] = d
		}
		for _, name := range h.names {
			h.left.devices[name] = h.devices[name].Cut()
		}
	}
	h.core.Observe(watch)
	for _, name := range h.names {
		h.devices[name].Region.SetObserver(func(int) { watch() })
	}
}

// takeOver starts a successor of the house on what is left.
func (h *house) takeOver() *house {
	c := h.left
	next := &house{t: h.t, mem: c.mem, devices: map[string]*ledgertest.Machine{}, names: h.names, final: map[any]catalog.Outcome{}, now: c.now, n: h.n,
		owed: map[any]string{}, tickets: map[*catalog.Copy]ledger.Ticket{}, files: h.files, sealed: map[uuid.UUID]string{}, descending: map[uuid.UUID]bool{}}
	granted := map[uuid.UUID]string{}
	for _, name := range h.names {
		m := h.devices[name]
		m.Now = c.now
		d, rep, err := m.TakeOver(c.devices[name])
		if err != nil {
			h.t.Fatal(err)
		}
		next.devices[name] = d
		for _, id := range rep.Models {
			granted[id] = name
		}
	}
	var rep catalog.Restored
	var err error
	next.core, rep, err = catalog.Restore(c.mem, policy(h.t), uuid.New, granted, nil, c.now)
	if err != nil {
		h.t.Fatal(err)
	}
	next.core.Warm("ram-0")
	next.core.Below("gpu-0", "ram-0")
	if len(rep.Lost) > 0 {
		h.t.Fatalf("lost %v", rep.Lost)
	}
	for id, device := range c.sealed {
		if cp, ok := next.core.ByGrant(id); !ok || cp.Device != device {
			if g, there := next.devices[device].Core.Grant(id); there && g.Status == ledger.StatusActive {
				h.t.Fatalf("a sealed copy on %s is not known any more", device)
			}
		}
	}
	for _, id := range rep.Orphans {
		next.device(granted[id], func(d *ledger.Device) { d.ReleaseModel(id, ledger.WhyLoadFailed, next.now) })
	}
	for _, name := range next.names {
		next.heard(name)
	}
	next.call(func() { next.core.Resume(next.now) })
	return next
}

// A crash after any store of any actor: what was loaded is there, what was not is undone,
// and a successor can go on.
func TestTakeOver(t *testing.T) {
	crashes := 0
	rapid.Check(t, func(t *rapid.T) {
		h := newHouse(t)
		h.crashAt(rapid.IntRange(1, 1500).Draw(t, "store"))
		for range rapid.IntRange(10, 60).Draw(t, "steps") {
			if h.step1(); h.left != nil {
				crashes++
				next := h.takeOver()
				for range rapid.IntRange(0, 10).Draw(t, "later") {
					next.step1()
				}
				next.end()
				return
			}
		}
	})
	t.Logf("%d crashes", crashes)
}

// A model that somebody maps when the node dies is read on: its readers are known again,
// so that it is not evicted, and what was being released goes on.
func TestReadersSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHouse(t)
		h.files["/m/a"] = 0
		h.owed[1] = "load"
		h.call(func() {
			h.core.Load(catalog.LoadRequest{Ref: 1, Tenant: "red", Name: "a", Path: "/m/a", Device: "ram-0", Patience: time.Minute}, h.now)
		})
		h.rest()
		grants := h.devices["ram-0"].Grants()
		if len(grants) == 0 {
			return // the load failed, by chance
		}
		h.device("ram-0", func(c *ledger.Device) {
			_, claim, _ := c.Handle(grants[0].ID, "red", h.now)
			c.Take()
			c.Map(ledger.MapRequest{Session: "s1", PID: 1001, Digest: ledger.DigestOf(claim), Mode: ledger.ReadOnly}, h.now)
		})
		h.rest()
		h.crashAt(0)
		h.left = &crash{mem: h.mem, devices: map[string]ledgertest.Cut{}, sealed: h.sealed, now: h.now}
		for _, name := range h.names {
			h.left.devices[name] = h.devices[name].Cut()
		}
		next := h.takeOver()
		next.rest()
		cp, ok := next.core.ByGrant(grants[0].ID)
		if !ok || cp.Readers() != 1 || next.core.Reclaimable("ram-0") != 0 {
			t.Fatalf("after the take-over: %+v", cp)
		}
		next.end()
	})
}

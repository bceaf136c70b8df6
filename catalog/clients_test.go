package catalog_test

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// What clients of a house do, by chance.

func (h *house) load() {
	t := h.t
	h.n++
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "model")
	r := catalog.LoadRequest{Ref: h.n, Tenant: rapid.SampledFrom([]string{"red", "red", "blue"}).Draw(t, "tenant"), Name: name,
		Device: rapid.SampledFrom(h.names).Draw(t, "device"), RequestID: fmt.Sprint(h.n), DryRun: rapid.IntRange(0, 9).Draw(t, "dry run") == 0,
		Patience: rapid.SampledFrom([]time.Duration{0, 30 * time.Second}).Draw(t, "patience"), Shared: rapid.Bool().Draw(t, "shared")}
	r.Path = rapid.SampledFrom([]string{"/m/" + name, "", "/m/" + name, "/m/" + name, "/m/other"}).Draw(t, "path")
	r.Cold = rapid.Bool().Draw(t, "cold")
	r.Changed = rapid.IntRange(0, 4).Draw(t, "changed") == 0
	if rapid.IntRange(0, 3).Draw(t, "acquire") == 0 && !r.DryRun {
		r.Reference, r.Keep = &catalog.Reference{ID: fmt.Sprint("r", h.n), Lease: rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "lease"), Session: "s1"}, true
	}
	if rapid.Bool().Draw(t, "keyed") && !r.DryRun {
		r.Key = ledger.AnswerKey(r.Tenant, r.RequestID)
		r.Answer = func(cp *catalog.Copy) ledger.AnswerRecord {
			return ledger.AnswerRecord{Key: r.Key, Action: "load_model", Grant: cp.Grant, Model: cp.Model.Name}
		}
	}
	dry := r
	dry.Ref, dry.DryRun, dry.Key, dry.Answer = fmt.Sprint("dry ", h.n), true, "", nil
	h.owed[dry.Ref], h.owed[r.Ref] = "dry", "load"
	h.call(func() { h.core.Load(dry, h.now) })
	h.call(func() { h.core.Load(r, h.now) })
	h.foreseen("the load", h.final[dry.Ref].Err, h.final[r.Ref].Err)
}

// foreseen checks the dry run of a command against what was said of it at once.
func (h *house) foreseen(what string, plan, real *schemas.Error) {
	h.t.Helper()
	if (plan == nil) != (real == nil) || plan != nil && (plan.Code != real.Code || plan.Message != real.Message) {
		h.t.Fatalf("the dry run of %s said %v, it became %v", what, plan, real)
	}
}

func (h *house) step1() {
	t := h.t
	switch rapid.IntRange(0, 11).Draw(t, "step") {
	case 0, 1, 2:
		h.load()
	case 3:
		h.n++
		h.owed[h.n] = "unload"
		r := catalog.UnloadRequest{Ref: h.n, Tenant: rapid.SampledFrom([]string{"red", "blue"}).Draw(t, "tenant"), Name: rapid.SampledFrom([]string{"a", "b", "*"}).Draw(t, "name"),
			Device: rapid.SampledFrom([]string{"", "ram-0"}).Draw(t, "device"), Force: rapid.Bool().Draw(t, "force")}
		if rapid.Bool().Draw(t, "demote") {
			r.Demote, h.demoting = map[string]string{"sim-0": "ram-0"}, h.n
		}
		plan := h.core.PlanUnload(r)
		h.call(func() { h.core.Unload(r, h.now) })
		h.foreseen("the unload", plan, h.final[r.Ref].Err)
	case 4:
		if h.owed[h.demoting] == "unload" {
			h.call(func() { h.core.Cancel(h.demoting, schemas.Errorf(schemas.CodeCancelled, "by its client"), h.now) })
		}
		for ref := range h.owed {
			if ref == h.n && h.owed[ref] == "load" {
				h.call(func() { h.core.Cancel(ref, schemas.Errorf(schemas.CodeCancelled, "by its client"), h.now) })
			}
		}
	case 5:
		h.mapModel()
	case 6:
		if len(h.refs) > 0 {
			id := h.refs[0]
			h.refs = h.refs[1:]
			tenant := rapid.SampledFrom([]string{"red", "blue"}).Draw(t, "tenant")
			_, plan := h.core.FindReference(tenant, "", id)
			var err *schemas.Error
			if rapid.Bool().Draw(t, "renew") {
				h.call(func() { _, err = h.core.Renew(tenant, id, catalog.Reference{Lease: time.Second}, h.now) })
				h.foreseen("the renewal", plan, err)
				_, plan = h.core.FindReference(tenant, "", id)
			}
			h.call(func() { err = h.core.ReleaseReference(tenant, "", id, h.now) })
			h.foreseen("the end of a reference", plan, err)
		}
	case 7:
		d := rapid.SampledFrom([]time.Duration{time.Millisecond, 3 * time.Second, 40 * time.Second}).Draw(t, "time")
		h.now.Boot, h.now.Wall = h.now.Boot.Add(d), h.now.Wall.Add(d)
		for _, name := range h.names {
			h.device(name, func(c *ledger.Device) { c.Tick(h.now) })
		}
		h.call(func() { h.core.Tick(h.now) })
	case 8:
		h.files["/m/"+rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "file")]++
	case 9:
		h.rest()
	default:
		for range rapid.IntRange(1, 12).Draw(t, "turns") {
			h.turn()
		}
	}
}

// mapModel has a session map a model that it may, or let go of what it maps.
func (h *house) mapModel() {
	name := rapid.SampledFrom(h.names).Draw(h.t, "device")
	m := h.devices[name]
	grants := m.Grants()
	if len(grants) == 0 {
		return
	}
	g := grants[rapid.IntRange(0, len(grants)-1).Draw(h.t, "grant")]
	if rapid.Bool().Draw(h.t, "unmap") {
		m.LetGo("s1", g.Segments)
		h.device(name, func(c *ledger.Device) { c.Unmap("s1", g.ID, h.now) })
		return
	}
	h.device(name, func(c *ledger.Device) {
		if _, claim, err := c.Handle(g.ID, g.Owner.Tenant, h.now); err == nil {
			c.Take()
			c.Map(ledger.MapRequest{Session: "s1", PID: 1001, Digest: ledger.DigestOf(claim), Mode: ledger.ReadOnly}, h.now)
		}
	})
}

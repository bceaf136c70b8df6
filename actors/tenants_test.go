package actors_test

import (
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// as gives a command of a tenant and a role, which must succeed.
func as[R any](h *timed, tenant string, role schemas.Role, action schemas.Action, data any) R {
	h.t.Helper()
	a := <-h.send(&actors.Command{Tenant: tenant, Role: role, Action: action, RequestID: "r", Wait: time.Hour, Data: data})
	if a.err != nil {
		h.t.Fatalf("%s of %s: %v", action, tenant, a.err)
	}
	return a.data.(R)
}

// A tenant's floor keeps its unread models whoever else needs room: another tenant's request,
// the pressure, an operator. Only for itself they go.
func TestAFloorKeepsATenantsModels(t *testing.T) {
	const limit = 64 * mib
	floor := int64(0)
	h := openTimed(t, nil, func(c *actors.Config) {
		c.Devices[0].Limit = limit
		c.Devices[0].Quotas = []ledger.QuotaChange{{Tenant: "red", Floor: &floor}}
	})
	load := func(tenant, name string, seed uint64) {
		as[*schemas.LoadModelReply](h, tenant, "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: h.model(name, seed)})
	}
	load("red", "old", 1)
	load("red", "older", 2)
	floor = h.bytes().UsedMemory // of all that red has
	as[*schemas.SetLimitsReply](h, "red", "", schemas.ActionSetLimits, &schemas.SetLimitsRequest{DeviceID: "gpu-0", Tenant: &schemas.TenantLimits{Name: "red", FloorBytes: &floor}})
	h.clock.Advance(time.Hour) // nobody has read them for long
	load("blue", "new", 3)
	h.pass(eviction.MinGrace) // else it is kept because it was just loaded

	scratch := func(tenant string, bytes int64) answer {
		return <-h.send(&actors.Command{Tenant: tenant, Action: schemas.ActionAllocate, RequestID: "r", Wait: time.Hour,
			Data: &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: bytes, TimeoutSeconds: ptr[int64](0)}})
	}
	resident := func(want string) {
		t.Helper()
		h.pass(0)
		var names []string
		for _, tenant := range []string{"red", "blue"} {
			for _, m := range as[*schemas.GetModelInfoReply](h, tenant, "", schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{}).Models {
				if len(m.Residency) > 0 {
					names = append(names, m.Name)
				}
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Fatalf("resident are %q, not %q", got, want)
		}
	}
	rest := limit - floor
	a := scratch("blue", rest)
	if a.err != nil {
		t.Fatal(a.err)
	}
	if e := a.data.(*schemas.AllocateReply).Evicted; len(e) != 1 || e[0].Model != "new" {
		t.Errorf("%+v made room", e)
	}
	resident("old older")
	if h.level() != schemas.PressureCritical {
		t.Errorf("the level is %s", h.level())
	}
	if a := scratch("blue", 2*mib); a.err == nil || a.err.Code != schemas.CodeOutOfMemory {
		t.Errorf("beyond what the floor leaves: %+v %v", a.data, a.err)
	}
	h.pass(time.Minute) // for as long as it is critical, pressure has models released
	as[*schemas.ModelOptimizeReply](h, "default", "", schemas.ActionModelOptimize, &schemas.ModelOptimizeRequest{DeviceID: "gpu-0", ForceOptimization: true,
		TargetPressureLevel: schemas.PressureLow, Strategy: schemas.EvictLRU})
	resident("old older")
	if a := scratch("red", 2*mib); a.err != nil {
		t.Errorf("for itself: %v", a.err)
	} else if e := a.data.(*schemas.AllocateReply).Evicted; len(e) != 1 || !strings.HasPrefix(e[0].Model, "old") {
		t.Errorf("for itself %+v made room", e)
	}
}

// A client of the default tenant sees its own, where that is a tenant like the others; the
// host's own account sees all.
func TestWhoIsToldOfWhom(t *testing.T) {
	h := openTimed(t, nil, func(c *actors.Config) { c.Devices[0].Limit = 128 * mib })
	as[*schemas.AllocateReply](h, "red", schemas.RoleClient, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 124 * mib, Purpose: "hidden"})
	h.pass(2 * time.Hour)
	for _, x := range []struct {
		role schemas.Role
		all  bool
	}{{schemas.RoleReader, false}, {schemas.RoleClient, false}, {schemas.RoleOperator, true}, {"", true}} {
		r := as[*schemas.AnalyticsReply](h, "default", x.role, schemas.ActionAnalytics, &schemas.AnalyticsRequest{})
		hidden := false
		for _, o := range r.TopHolders {
			hidden = hidden || strings.Contains(o.Owner, "hidden")
		}
		if hidden != x.all || (len(r.LeakSuspects) > 0) != x.all || len(r.TopHolders) != 1 {
			t.Errorf("a %q of default is told of %+v, suspects %+v", x.role, r.TopHolders, r.LeakSuspects)
		}
		operators := false
		for _, rec := range as[*schemas.OptimizationRecsReply](h, "default", x.role, schemas.ActionOptimizationRecs, &schemas.OptimizationRecsRequest{}).Recommendations {
			spec, _ := schemas.Lookup(rec.Command.Action)
			operators = operators || spec.Role == schemas.RoleOperator
		}
		if operators != x.all {
			t.Errorf("a %q is recommended what an operator may do: %v", x.role, operators)
		}
	}
}

// Another's model that is shared shows a tenant its own readers, by reference and by mapping;
// its references are its own too, and its events say whose readers there are.
func TestReadersOfASharedModel(t *testing.T) {
	h := openTimed(t, nil)
	path := h.model("m", 1)
	as[*schemas.LoadModelReply](h, "red", "", schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", Path: path, Shared: true})
	acquire := func(tenant string) string {
		return as[*schemas.AcquireModelReply](h, tenant, "", schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: "m", LeaseSeconds: ptr[int64](60)}).ReferenceID
	}
	red := acquire("red")
	acquire("red")
	acquire("blue")
	for tenant, want := range map[string]int{"red": 3, "blue": 1, "green": 0} {
		ms := as[*schemas.GetModelInfoReply](h, tenant, "", schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{Name: "m"}).Models
		if len(ms) != 1 || ms[0].Readers != want {
			t.Errorf("%s sees %+v, not %d readers", tenant, ms, want)
		}
	}
	if a := h.command("blue", "", schemas.ActionReleaseModel, &schemas.ReleaseModelRequest{ReferenceID: red}); a.err == nil || a.err.Code != schemas.CodeModelNotFound {
		t.Errorf("blue releases red's reference: %+v %v", a.data, a.err)
	}
	as[*schemas.UnloadModelReply](h, "red", "", schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m", Force: true})
	e := h.events.await(t, string(schemas.EventModelReleaseRequested), func(e schemas.Event) bool { return e.Event == schemas.EventModelReleaseRequested }).Data.(*schemas.ModelEvent)
	if len(e.ReadersOf) != 2 || e.ReadersOf["red"] != 2 || e.ReadersOf["blue"] != 1 {
		t.Errorf("the event says %+v of its readers", e.ReadersOf)
	}
}

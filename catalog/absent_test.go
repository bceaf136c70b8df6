package catalog_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/schemas"
)

// again is a take-over with these grants, while a device is absent.
func (b *bench) again(granted map[uuid.UUID]string, absent ...string) catalog.Restored {
	b.t.Helper()
	names := map[string]bool{}
	for _, a := range absent {
		names[a] = true
	}
	c, rep, err := catalog.Restore(b.mem, policy(b.t), uuid.New, granted, names, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	b.c, b.said = c, nil
	if err := c.Check(); err != nil {
		b.t.Fatal(err)
	}
	return rep
}

// A copy on a device that is not configured for a while is neither lost nor forgotten: when
// the device is back it is known again, with its reference.
func TestCopiesOnAnAbsentDeviceComeBack(t *testing.T) {
	b := newBench(t, 1<<20)
	id := b.loaded(catalog.LoadRequest{Path: "m", Reference: &catalog.Reference{ID: "ref", Session: "s"}}, "c1")
	if rep := b.again(nil, "ram-0"); len(rep.Lost) != 0 || rep.Models != 0 {
		t.Fatalf("restored %+v", rep)
	}
	m, err := b.c.Find("red", "m")
	if err != nil || m.Usable("") != nil {
		t.Fatalf("%+v, %v", m, err)
	}
	// Its name is not free for another file, and unloading it changes nothing.
	b.load("a", catalog.LoadRequest{Path: "other"})
	b.says("a refused MODEL_CONFLICT")
	b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "b", Tenant: "red", Name: "m", Force: true}, b.now) })
	b.says("b refused DEVICE_LOST")
	if err := b.c.PlanUnload(catalog.UnloadRequest{Tenant: "red", Name: "*"}); err != nil {
		t.Fatal(err)
	}
	if rep := b.again(map[uuid.UUID]string{id: "ram-0"}); rep.Models != 1 || len(rep.Lost)+len(rep.Orphans) != 0 {
		t.Fatalf("restored %+v", rep)
	}
	if cp, ok := b.c.ByGrant(id); !ok || cp.Readers() != 1 {
		t.Fatal("the copy has lost its reader")
	}
}

// The file changes while the device is absent: what it holds is the old version, and stays
// beside the new one.
func TestANewVersionWhileADeviceIsAbsent(t *testing.T) {
	b := newBench(t, 1<<20)
	old := b.loaded(catalog.LoadRequest{Path: "m"}, "c1")
	b.again(nil, "ram-0")
	next := b.loaded(catalog.LoadRequest{Path: "m", Device: "gpu-0"}, "c2")
	if err := b.c.Check(); err != nil {
		t.Fatal(err)
	}
	b.again(map[uuid.UUID]string{next: "gpu-0"}, "ram-0")
	if rep := b.again(map[uuid.UUID]string{next: "gpu-0", old: "ram-0"}); rep.Models != 2 || len(rep.Lost)+len(rep.Orphans) != 0 {
		t.Fatalf("restored %+v", rep)
	}
	a, _ := b.c.ByGrant(old)
	z, _ := b.c.ByGrant(next)
	if !a.Model.Superseded || z.Model.Superseded || z.Model.Version != 2 || a.State != catalog.Sealed {
		t.Fatalf("%+v and %+v", a.Model, z.Model)
	}
	b.do(func() { b.c.Unload(catalog.UnloadRequest{Ref: "u", Tenant: "red", Name: "m"}, b.now) })
	b.says("step release", "step release")
	for _, id := range []uuid.UUID{old, next} {
		b.do(func() { b.c.Released(id, 1, 0, true, b.now) })
	}
	if b.again(nil); b.c.PlanUnload(catalog.UnloadRequest{Tenant: "red", Name: "m"}) != (*schemas.Error)(nil) {
		t.Fatal("the name is gone")
	}
}

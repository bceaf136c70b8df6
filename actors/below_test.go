package actors_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/eviction/replay"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// twoTiers is a catalog with a device and main memory behind it, whose bytes are counted; every
// step is carried out at once, and takes the time that it is said to take.
type twoTiers struct {
	t       *testing.T
	c       *catalog.Catalog
	now     ledger.Now
	free    map[string]int64
	bus     float64 // bytes a second
	grants  uint64
	request int
	decided []replay.Descent
}

func newTwoTiers(t *testing.T, device, mainMemory int64, bus float64) *twoTiers {
	region, err := store.Format(make([]byte, 16<<20), "pool")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := eviction.New("")
	if err != nil {
		t.Fatal(err)
	}
	x := &twoTiers{t: t, c: catalog.New(region, policy, uuid.New), bus: bus, free: map[string]int64{"gpu-0": device, "ram-0": mainMemory},
		now: ledger.Now{Boot: clock.Instant(time.Hour), Wall: time.Unix(1000, 0)}}
	x.c.Warm("ram-0")
	x.c.Below("gpu-0", "ram-0")
	return x
}

// serve has a model on the device.
func (x *twoTiers) serve(o eviction.Object) {
	x.t.Helper()
	x.now.Boot = x.now.Boot.Add(time.Second)
	x.c.Load(catalog.LoadRequest{Ref: o.Key, Tenant: "red", Name: o.Key, Path: o.Key, Device: "gpu-0"}, x.now)
	x.carryOut(o)
	x.request++
}

// carryOut does what the catalog wants done, for a load of a model from disk or on its way down.
func (x *twoTiers) carryOut(o eviction.Object) {
	x.t.Helper()
	steps := append([]catalog.Step(nil), x.c.Take().Steps...)
	for _, s := range steps {
		cp := s.Copy
		switch s.Kind {
		case catalog.StepInspect:
			x.c.Inspected(cp, nil, catalog.Description{Path: o.Key, ContentID: o.Key, Bytes: o.Bytes, Segments: []int64{o.Bytes}}, nil, x.now)
		case catalog.StepAllocate:
			bytes := cp.Model.Bytes
			if need := bytes - x.free[cp.Device]; need > 0 {
				x.makeRoom(cp.Device, need)
			}
			if x.free[cp.Device] -= bytes; x.free[cp.Device] < 0 {
				x.t.Fatalf("%s is short of %d bytes", cp.Device, -x.free[cp.Device])
			}
			x.grants++
			var id uuid.UUID
			binary.BigEndian.PutUint64(id[8:], x.grants)
			x.c.Granted(cp, id, bytes, nil, 0, x.now)
		case catalog.StepFill:
			x.now.Boot = x.now.Boot.Add(time.Duration(o.Cost * float64(time.Second)))
			x.c.Filled(cp, nil, x.now)
		case catalog.StepCopy:
			if cp.Device == "gpu-0" {
				x.now.Boot = x.now.Boot.Add(time.Duration(float64(cp.Granted) / x.bus * float64(time.Second)))
			}
			x.c.Filled(cp, nil, x.now)
		case catalog.StepSeal:
			x.c.SealDone(cp, nil, x.now)
		case catalog.StepRelease:
			x.free[cp.Device] += cp.Granted
			x.c.Released(s.Grant, cp.Granted, 0, true, x.now)
		}
		x.carryOut(o)
	}
}

// makeRoom lets go of models on the device, by way of main memory where that is to keep them.
func (x *twoTiers) makeRoom(device string, need int64) {
	x.t.Helper()
	if device != "gpu-0" {
		x.t.Fatalf("%s lacks %d bytes for what comes down", device, need)
	}
	plan, whose := x.c.Plan(catalog.Want{Device: device, Bytes: need, Whose: "red"}, x.now.Boot)
	if plan.Shortfall > 0 {
		x.t.Fatalf("short of %d", plan.Shortfall)
	}
	taken := map[uuid.UUID]bool{}
	for _, cp := range whose {
		if warm := x.c.WarmCopy(cp.Model, device); warm != nil {
			taken[warm.Grant] = true
		}
	}
	for _, cp := range whose {
		x.descend(cp, taken)
	}
}

func (x *twoTiers) descend(cp *catalog.Copy, taken map[uuid.UUID]bool) {
	x.t.Helper()
	d := replay.Descent{Request: x.request, Key: cp.Model.Name}
	if lacks := cp.Granted - x.free["ram-0"]; lacks > 0 && x.c.WarmCopy(cp.Model, "gpu-0") == nil {
		plan, whose, ok := x.c.GiveWay(catalog.Descent{Copy: cp, To: "ram-0", Lacks: lacks, Taken: taken}, x.now.Boot)
		if ok && plan.Freed < lacks {
			x.t.Fatalf("%d bytes give way, %d are lacking", plan.Freed, lacks)
		}
		if d.Dropped = !ok; !ok {
			x.c.Evict(cp, "room", x.now)
			x.carryOut(eviction.Object{})
			x.decided = append(x.decided, d)
			return
		}
		for _, other := range whose {
			d.GaveWay = append(d.GaveWay, other.Model.Name)
			if taken[other.Grant] || !x.c.Evict(other, "it gives way", x.now) {
				x.t.Fatalf("%s cannot give way", other.Key())
			}
			x.carryOut(eviction.Object{})
		}
	}
	if !x.c.EvictDown(cp, "ram-0", "room", x.now) {
		x.t.Fatalf("%s cannot go down", cp.Key())
	}
	x.carryOut(eviction.Object{})
	x.decided = append(x.decided, d)
}

// The catalog decides over two tiers what the replay does: what goes from the device and what becomes of it, and what
// gives way to it in main memory. What is measured there holds here.
func TestTwoTiersDecideAsTheReplayDoes(t *testing.T) {
	const unit = 2 << 20
	kept, dropped, gave := 0, 0, 0
	for seed := range int64(10) {
		whole := replay.Synthetic(seed, 600)
		var total, largest int64
		cut := &replay.Trace{Models: whole.Models}
		var objects []eviction.Object
		for _, o := range whole.Assignments[0].Costs[replay.Measured] {
			o.Bytes, o.Cost = max(1, o.Bytes>>31)*unit, float64(max(1, int64(o.Cost*1000)))/1000 // whole milliseconds
			objects = append(objects, o)
			largest = max(largest, o.Bytes)
		}
		used := map[int]bool{}
		for _, needs := range whole.Requests {
			i := needs[len(needs)-1]
			cut.Requests = append(cut.Requests, []int{i})
			if !used[i] {
				used[i] = true
				total += objects[i].Bytes
			}
		}
		cut.Assignments = []replay.Assignment{{Seed: "small", Costs: map[string][]eviction.Object{replay.Measured: objects}}}
		bound := replay.Bound{Cost: replay.Measured, Seed: "small", Seconds: 1}
		size := replay.Tiers{Device: max(largest, total/10/unit*unit), Main: total / (3 + seed) / unit * unit, BytesPerSecond: unit * 1e6}
		var want []replay.Descent
		if _, err := cut.FollowTiers(bound, size, eviction.DefaultName, replay.Node, func(d replay.Descent) { want = append(want, d) }); err != nil {
			t.Fatal(err)
		}
		x := newTwoTiers(t, size.Device, size.Main, size.BytesPerSecond)
		for _, needs := range cut.Requests {
			x.serve(objects[needs[0]])
		}
		if err := x.c.Check(); err != nil {
			t.Fatal(err)
		}
		for _, d := range want {
			switch {
			case d.Dropped:
				dropped++
			case len(d.GaveWay) > 0:
				gave++
			default:
				kept++
			}
		}
		for i := range max(len(want), len(x.decided)) {
			if i >= len(want) || i >= len(x.decided) || fmt.Sprint(want[i]) != fmt.Sprint(x.decided[i]) {
				t.Fatalf("seed %d: decision %d of %d and %d:\ngot  %+v\nwant %+v", seed, i, len(x.decided), len(want), x.decided[min(i, len(x.decided)):min(i+1, len(x.decided))], want[min(i, len(want)):min(i+1, len(want))])
			}
		}
	}
	if kept < 100 || dropped < 10 || gave < 100 {
		t.Errorf("%d are kept, %d dropped, and others give way to %d: that shows nothing", kept, dropped, gave)
	}
}

package ledger_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// wanted are the kinds of the jobs that the core wants done.
func wanted(d *ledger.Device) []ledger.JobKind {
	var out []ledger.JobKind
	for _, j := range d.Take().Jobs {
		out = append(out, j.Kind)
	}
	return out
}

func wants(t *testing.T, d *ledger.Device, when string, kind ledger.JobKind) {
	t.Helper()
	if got := wanted(d); len(got) != 1 || got[0] != kind {
		t.Fatalf("%s the jobs are of kinds %v, not one of kind %d", when, got, kind)
	}
	if again := wanted(d); len(again) != 0 {
		t.Fatalf("%s jobs of kinds %v are given out again", when, again)
	}
}

// An actor may hear from others before it has carried out what its core wanted: a job
// that is lost then is waited for in vain, and one that is done twice is worse.
func TestEachEffectIsTakenOnce(t *testing.T) {
	mem := make([]byte, 1<<20)
	region, err := store.Format(mem, "device/gpu-0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := ledger.DeviceConfig{Device: "gpu-0", Type: "VRAM", Physical: 1 << 30, Rand: func([]byte) {}, NewID: uuid.New}
	now := ledger.Now{Boot: 1}
	d := ledger.NewDevice(cfg, region)
	ticket := d.Allocate(&ledger.Request{Ref: "load", Owner: ledger.Owner{Tenant: "default"}, Class: ledger.ClassWeights, Model: "m",
		Size: 2 << 20, Segments: []int64{2 << 20}, Unclaimed: true}, now)
	d.SetReclaimable(1, now)
	d.SetOutside(1, 1<<30, now)
	wants(t, d, "after an allocation", ledger.JobCreate)
	d.Prepared(ticket, ledger.JobCreate, nil, false, now)
	if o := d.Take().Outcomes; len(o) != 1 || o[0].Kind != ledger.OutcomeGranted {
		t.Fatalf("outcomes %+v", o)
	}

	// The node dies while the model is being read: its successor undoes the load.
	im, err := ledger.ReadImage(mem)
	if err != nil {
		t.Fatal(err)
	}
	d, rep, err := ledger.Restore(cfg, im, nil, now)
	if err != nil || len(rep.Undone) != 1 {
		t.Fatalf("restored %+v, %v", rep, err)
	}
	d.SetReclaimable(1, now)
	d.SessionDead("somebody's", now)
	wants(t, d, "after a take-over", ledger.JobProve)
	d.Proved(rep.Undone[0], true, now)
	wants(t, d, "after the proof", ledger.JobDestroy)
}

package actors_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// without is a house that lacks the device of the one before, and has another.
func without(t *testing.T, before *timed, forget bool) func(*actors.Config) {
	return func(c *actors.Config) {
		c.Devices = []actors.DeviceConfig{{Driver: gpu(t, "gpu-1", 1<<30)}}
		c.Absent = []actors.AbsentDevice{{ID: "gpu-0", Memory: before.ledger["device/gpu-0"], Forget: forget}}
	}
}

// What an absent device left is kept as long as it cannot be known to be nobody's: with a
// grant, and with a ledger that cannot be read.
func TestWhatAnAbsentDeviceLeft(t *testing.T) {
	for name, c := range map[string]struct {
		grant, spoil, forget bool
		kept                 bool
	}{
		"a grant":             {grant: true, kept: true},
		"nothing":             {},
		"unreadable":          {spoil: true, kept: true},
		"a grant, forgotten":  {grant: true, forget: true},
		"spoiled, forgotten":  {grant: true, spoil: true, forget: true},
		"a grant, unreadable": {grant: true, spoil: true, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kept, world := heirs()
				first := openTimed(t, nil, world)
				want := 0
				if c.grant {
					first.allocate(schemas.AllocateRequest{SizeBytes: 8 * mib, Class: schemas.ClassState})
					want = 1
				}
				first.close()
				if c.spoil {
					clear(first.ledger["device/gpu-0"][8:32]) // its format's version among others
				}
				image := slices.Clone(first.ledger["device/gpu-0"])
				held := len(kept)
				next := openTimed(t, first, world, without(t, first, c.forget))
				found := next.Kept()
				if (len(found) == 1) != c.kept || (len(next.LetGo()) == 1) == c.kept {
					t.Fatalf("kept %+v, let go of %q", found, next.LetGo())
				}
				if !c.kept {
					held = 0
				} else if (found[0].Fault != "") != c.spoil || !c.spoil && found[0].Grants != want {
					t.Errorf("kept: %+v", found[0])
				}
				if len(kept) != held {
					t.Errorf("%d segments in the vault, not %d", len(kept), held)
				}
				if c.kept && !slices.Equal(image, first.ledger["device/gpu-0"]) {
					t.Error("its ledger was written to")
				}
			})
		})
	}
}

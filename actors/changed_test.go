package actors_test

import (
	"maps"
	"os"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// A model whose file has changed on disk is a new version at the next load_model, also
// after a take-over; one whose file is the same, or is gone, is served as it is.
func TestAChangedFileIsANewVersion(t *testing.T) {
	kept := shelf{}
	world := func(c *actors.Config) {
		c.Keeper, c.Inherited = kept, maps.Clone(kept)
		c.Watch = func(*os.File, func()) (func(), error) { return func() {}, nil }
	}
	h := openTimed(t, nil, world)
	path := h.model("m", 1)
	load := func(in schemas.LoadModelRequest, version string, hit bool) *schemas.LoadModelReply {
		t.Helper()
		in.Name = "m"
		r := call[*schemas.LoadModelReply](t, h.house, schemas.ActionLoadModel, &in)
		if r.Model.Version != version || (r.SourceTier == schemas.TierVRAM) != hit || r.Handle == nil {
			t.Fatalf("version %s from %s, not %s, a hit: %v", r.Model.Version, r.SourceTier, version, hit)
		}
		return r
	}
	load(schemas.LoadModelRequest{Path: path}, "1", false)
	first := load(schemas.LoadModelRequest{Path: path}, "1", true)

	h.model("m", 2) // written anew
	second := load(schemas.LoadModelRequest{Path: path}, "2", false)
	if second.AllocationIDs[0] == first.AllocationIDs[0] || second.Model.ContentID == first.Model.ContentID {
		t.Fatal("the new version is the old memory")
	}
	load(schemas.LoadModelRequest{}, "2", true)
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	load(schemas.LoadModelRequest{}, "3", false) // known, and no path is named

	h.close()
	h = openTimed(t, h, world)
	load(schemas.LoadModelRequest{}, "3", true)
	load(schemas.LoadModelRequest{}, "3", true)
	h.close()
	if err := weightstest.Sized(8*mib, 3).WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	h = openTimed(t, h, world)
	load(schemas.LoadModelRequest{Path: path}, "4", false)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	load(schemas.LoadModelRequest{Path: path}, "4", true)
}

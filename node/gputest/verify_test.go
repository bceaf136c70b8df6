package gputest

import (
	"errors"
	"os"
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

// A GPU does not keep who maps weights from writing to them; a model is compared with its file when
// it is loaded, and whenever somebody asks, and what was written is found and told.
func TestWritingToWeightsIsFound(t *testing.T) {
	h := start(t, place(t))
	x := consume(t, h)
	const size = 24 * mib
	path := h.model("m", size, 1)
	no := false
	in := &schemas.LoadModelRequest{Name: "m", Path: path, DeviceID: "gpu-0", KeepWarm: &no, Verify: true}
	first := done[schemas.LoadModelReply](h, schemas.ActionLoadModel, in)
	verify := &schemas.LoadModelRequest{Name: "m", Verify: true}
	again := done[schemas.LoadModelReply](h, schemas.ActionLoadModel, verify)
	if !first.Verified || !again.Verified || again.AllocationIDs[0] != first.AllocationIDs[0] || again.Handle == nil {
		t.Fatalf("verified %v as it was loaded, %+v later", first.Verified, again)
	}
	if plain := done[schemas.LoadModelReply](h, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m"}); plain.Verified {
		t.Error("verified although nobody asked")
	}

	id := x.tell(order{Do: "map", Claim: again.Handle.Claim, Model: true, Forge: true}).ID
	x.tell(order{Do: "model", ID: id, Bytes: size, Seed: 1})
	x.tell(order{Do: "write", ID: id, Seed: 9})
	_, err := call[schemas.LoadModelReply](h, schemas.ActionLoadModel, verify)
	var fail *schemas.Error
	if !errors.As(err, &fail) || fail.Code != schemas.CodeInvalidModel || fail.Details["device_id"] != "gpu-0" || fail.Details["tensor"] == "" {
		t.Fatalf("%v %+v, not where a model differs", err, fail)
	}

	// The way out that the message names.
	x.kill()
	done[schemas.UnloadModelReply](h, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m", Force: true})
	if r := done[schemas.LoadModelReply](h, schemas.ActionLoadModel, in); !r.Verified {
		t.Error("not verified when it was loaded again")
	}
	if r := done[schemas.LoadModelReply](h, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", DeviceID: "ram-0", Verify: true}); !r.Verified || r.Tier != schemas.TierRAM {
		t.Errorf("main memory: %+v", r)
	}

	// A file that is another by now is another model, and is loaded; one that is gone says nothing.
	h.model("m", size, 2)
	if r := done[schemas.LoadModelReply](h, schemas.ActionLoadModel, in); !r.Verified {
		t.Error("the new file was not verified")
	}
	must(t, os.Remove(path))
	refused[schemas.LoadModelReply](h, schemas.CodeFileNotReadable, schemas.ActionLoadModel, verify)
	h.stop()
}

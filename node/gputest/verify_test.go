package gputest

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"testing"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights"
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

	hashes := &schemas.LoadModelRequest{Name: "m", Hashes: sums(t, path)}
	if by := done[schemas.LoadModelReply](h, schemas.ActionLoadModel, hashes); !by.Verified {
		t.Errorf("not verified by hashes: %+v", by)
	}

	id := x.tell(order{Do: "map", Claim: again.Handle.Claim, Model: true, Forge: true}).ID
	x.tell(order{Do: "model", ID: id, Bytes: size, Seed: 1})
	x.tell(order{Do: "write", ID: id, Seed: 9})
	_, err := call[schemas.LoadModelReply](h, schemas.ActionLoadModel, verify)
	var fail *schemas.Error
	if !errors.As(err, &fail) || fail.Code != schemas.CodeInvalidModel || fail.Details["device_id"] != "gpu-0" || fail.Details["tensor"] == "" {
		t.Fatalf("%v %+v, not where a model differs", err, fail)
	}

	_, err = call[schemas.LoadModelReply](h, schemas.ActionLoadModel, hashes)
	if !errors.As(err, &fail) || fail.Code != schemas.CodeInvalidModel || fail.Details["device_id"] != "gpu-0" || fail.Details["tensor"] == "" {
		t.Errorf("by hashes: %v %+v", err, fail)
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

// sums are the hashes of a model file's tensors.
func sums(t *testing.T, path string) (out []string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	m, err := weights.InspectFile(context.Background(), f, "m", weights.Options{})
	must(t, err)
	defer m.Close()
	content, err := os.ReadFile(path)
	must(t, err)
	for _, tn := range m.Tensors {
		out = append(out, schemas.TensorHash{Tensor: tn.Name, SHA256: sha256.Sum256(content[tn.FileOffset : tn.FileOffset+tn.Bytes])}.String())
	}
	return out
}

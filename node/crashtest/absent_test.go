package crashtest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// missingDevices are the devices that a node warns of as not configured.
func missingDevices(n *nodeProcess, c *client.Client) (out []string) {
	n.t.Helper()
	r := must[schemas.GetStatusReply](n, c, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: schemas.DeviceIDAll})
	for _, w := range r.Warnings {
		if w.Code == schemas.WarnDeviceMissing {
			if !strings.Contains(w.Fix, "--forget-device "+w.Subject) {
				n.t.Errorf("the fix does not say how to let go: %+v", w)
			}
			out = append(out, w.Subject)
		}
	}
	return out
}

// An operator forgets a device: nobody who maps its memory notices, whatever befalls node
// and vault meanwhile, and it is back whole when the device is.
func TestAForgottenDeviceComesBackWhole(t *testing.T) {
	both := settings{Dir: place(t), Devices: []node.DeviceSpec{
		{Kind: node.DeviceRAM, ID: "ram-0", Bytes: 128 * mib}, {Kind: node.DeviceSim, ID: "gpu-0", Bytes: 1 << 30}}}
	one := both
	one.Devices = both.Devices[:1]
	n := start(t, both)
	k := vaultOf(t, both.Dir)
	c := n.client()
	x := consume(t, n)
	grant(t, n, c, x, schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: mib}, 1)
	mapped := grant(t, n, c, x, schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 16 * mib}, 2)
	grant(t, n, c, nil, schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 4 * mib, Class: schemas.ClassState}, 0)
	path := filepath.Join(both.Dir, "models", "m.safetensors")
	if err := weightstest.Sized(modelBytes, 3).WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	load := must[schemas.LoadModelReply](n, c, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", Path: path, DeviceID: "gpu-0"})
	x.tell(order{Do: "map", Claims: []string{load.Handle.Claim}, Model: modelBytes, Seed: 3})
	before := balanced(n, c, k)
	stats, bytes := k.segments()
	whole := func(k *keeper) {
		t.Helper()
		if s, b := k.segments(); len(s) != len(stats) || b != bytes {
			t.Fatalf("the vault holds %d segments of %d bytes, and held %d of %d", len(s), b, len(stats), bytes)
		}
		x.tell(order{Do: "ping"})
		if l := x.again(); l.New != 0 || len(l.Lost) != 0 || l.Mapped != 3 {
			t.Fatalf("the reader: %+v", l)
		}
	}

	n.kill()
	n = start(t, one)
	c = n.client()
	if got := missingDevices(n, c); !slices.Equal(got, []string{"gpu-0"}) {
		t.Fatalf("missing: %q", got)
	}
	if _, err := call[schemas.GetAllocationReply](n, c, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: mapped}); err == nil || !strings.Contains(err.Error(), "gpu-0 is missing") {
		t.Errorf("asked for what is on it: %v", err)
	}
	if _, err := call[schemas.AllocateReply](n, c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: mib}); err == nil || !strings.Contains(err.Error(), "gpu-0 is missing") {
		t.Errorf("asked of it: %v", err)
	}
	whole(k)
	if end := n.stop(); end.Grants != len(before["ram-0"].Grants)+len(before["gpu-0"].Grants) || end.Models != 1 {
		t.Errorf("a clean stop leaves %+v", end)
	}

	n = start(t, one)
	whole(k)
	fdwire.Kill(k.pidfd)
	k.awaitEnd()
	c = n.client()
	grant(t, n, c, nil, schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 20 * mib}, 0) // waits for the next vault
	k = vaultOf(t, both.Dir)
	n.kill()

	n = start(t, both)
	c = n.client()
	if got := missingDevices(n, c); len(got) != 0 {
		t.Errorf("still missing: %q", got)
	}
	x.tell(order{Do: "ping"})
	if l := x.again(); l.New != 0 || len(l.Lost) != 0 || l.Mapped != 3 {
		t.Fatalf("the reader: %+v", l)
	}
	sameBooks(t, "gpu-0", before["gpu-0"], balanced(n, c, k)["gpu-0"])
	if m := must[schemas.GetModelInfoReply](n, c, schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{Name: "m"}).Models[0]; m.Readers != 1 || m.State != schemas.ModelSealed {
		t.Errorf("the model: %+v", m)
	}

	// Let go of, it is gone from the vault; its readers keep what they map.
	n.kill()
	forget := one
	forget.Forget = []string{"gpu-0", "gpu-9"}
	n = start(t, forget)
	c = n.client()
	if got := missingDevices(n, c); len(got) != 0 {
		t.Errorf("still missing: %q", got)
	}
	balanced(n, c, k) // the vault holds what the one device has
	x.tell(order{Do: "ping"})
	if l := x.again(); len(l.Lost) != 2 {
		t.Errorf("the reader was told that it lost %q", l.Lost)
	}
	n.kill()
	n = start(t, both)
	if b := balanced(n, n.client(), k)["gpu-0"]; len(b.Grants) != 0 || b.own() != 0 {
		t.Errorf("it came back: %+v", b)
	}
}

// Nothing is kept of a device on which nothing was granted, and an ephemeral node drops
// what is kept of others too.
func TestWhatIsNotKept(t *testing.T) {
	both := settings{Dir: place(t), Devices: []node.DeviceSpec{
		{Kind: node.DeviceRAM, ID: "ram-0", Bytes: 128 * mib}, {Kind: node.DeviceSim, ID: "gpu-0", Bytes: 1 << 30}}}
	one := both
	one.Devices = both.Devices[1:]
	n := start(t, both)
	k := vaultOf(t, both.Dir)
	grant(t, n, n.client(), nil, schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 4 * mib, Class: schemas.ClassState}, 0)
	n.kill()
	n = start(t, one)
	if got := missingDevices(n, n.client()); len(got) != 0 {
		t.Errorf("missing: %q", got)
	}
	n.kill()
	one.Devices, one.Ephemeral = both.Devices[:1], true
	n = start(t, one)
	if got := missingDevices(n, n.client()); !slices.Equal(got, []string{"gpu-0"}) {
		t.Errorf("missing: %q", got)
	}
	if end := n.stop(); end.Grants != 0 {
		t.Errorf("an ephemeral node leaves %+v", end)
	}
	k.awaitEnd()
}

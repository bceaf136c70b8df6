package gputest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

// unload unloads a model whose memory does not come back before the deadline.
func (h *host) unload(name string, bytes int64) {
	h.t.Helper()
	r := done[schemas.UnloadModelReply](h, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: name, DeadlineMs: new(int64(100))})
	if r.Confirmed || r.ZombieBytes != bytes || r.FreedBytes != 0 {
		h.t.Errorf("unload of what is not back: %+v", r)
	}
	const kept = 2 * mib // exported by the driver, for itself
	if m := h.memory("gpu-0"); m.ZombieMemory != bytes || m.ForeignMemory > kept || m.UsedMemory != bytes+m.ForeignMemory {
		h.t.Errorf("the device's memory: %+v", m)
	}
}

// warned waits for a warning of zombie bytes that says so much.
func (h *host) warned(text string) {
	h.t.Helper()
	until(h.t, "the warning", func() bool {
		st := done[schemas.GetStatusReply](h, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: "gpu-0"})
		return slices.ContainsFunc(st.Warnings, func(w schemas.HealthWarning) bool {
			return w.Code == schemas.WarnZombie && w.Fix != "" && strings.Contains(w.Text, text)
		})
	})
}

// Memory that a process says it has unmapped, and has not, is not granted to anybody else when
// the node has let go of it: it counts, and is told with that process's id, until its end.
func TestReleasedMemoryThatAProcessKeeps(t *testing.T) {
	h := start(t, place(t))
	x, y := consume(t, h), consume(t, h)
	r := h.load("m", 60*mib, 3)
	bytes := h.memory("gpu-0").ModelMemory
	x.tell(order{Do: "map", Claim: r.Handle.Claim, Model: true})
	x.tell(order{Do: "forget", ID: r.AllocationIDs[0]})
	h.unload("m", bytes)
	a := done[schemas.GetAllocationsReply](h, schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{DeviceID: "gpu-0"}).Allocations
	if len(a) != 1 || a[0].Status != schemas.AllocationZombie || len(a[0].MappedBy) != 1 || a[0].MappedBy[0].PID != x.cmd.Process.Pid {
		t.Errorf("listed as %+v, want process %d", a, x.cmd.Process.Pid)
	}
	h.warned(fmt.Sprint(x.cmd.Process.Pid))
	refused[schemas.AllocateReply](h, schemas.CodeOutOfMemory, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: gpuBytes - bytes, TimeoutSeconds: new(int64)})
	h.works(y, "gpu-0")
	h.works(y, "gpu-1")
	if d := h.device("gpu-0"); d.Health != schemas.HealthHealthy {
		t.Errorf("the device's health is %+v", d)
	}
	x.kill()
	h.empty()
	y.kill()
	h.stop()
}

// Memory that the driver does not take back is not granted to anybody either, and is told, until
// it is: because trying again helps, or with the node's end. The other device is as it was.
func TestReleasedMemoryThatTheDriverKeeps(t *testing.T) {
	h := start(t, place(t))
	x := consume(t, h)
	degraded := func() {
		t.Helper()
		until(t, "the device is degraded", func() bool { return h.device("gpu-0").Health == schemas.HealthDegraded })
		if d := h.device("gpu-1"); d.Health != schemas.HealthHealthy {
			t.Errorf("the other is %+v", d)
		}
	}
	load := func(seed byte) int64 {
		h.load("m", 24*mib, seed)
		return h.memory("gpu-0").UsedMemory
	}
	bytes := load(1)
	h.breaks(breakage{Fail: "cuMemRelease", N: 1, Code: invalidValue})
	h.unload("m", bytes)
	degraded()
	h.warned("the driver")
	h.works(x, "gpu-0")
	h.works(x, "gpu-1")
	x.kill()
	h.kill()
	h = start(t, h.dir)
	h.empty()

	bytes = load(2)
	h.breaks(breakage{Fail: "cuMemUnmap", N: 1, Code: invalidValue})
	h.unload("m", bytes)
	h.empty()
	until(t, "the device is well", func() bool { return h.device("gpu-0").Health == schemas.HealthHealthy })
	h.stop()
}

// Who uses a GPU without the node is named where the bytes are missed.
func TestOthersAreNamed(t *testing.T) {
	h := start(t, place(t))
	fake, err := openFake(h.dir)
	must(t, err)
	fake.Process(0, os.Getpid(), 50*mib)
	want := fmt.Sprintf("pid %d (gputest.test), without the node", os.Getpid())
	until(t, "they are named", func() bool {
		_, err := call[schemas.AllocateReply](h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 100 * mib, TimeoutSeconds: new(int64)})
		return err != nil && strings.Contains(err.Error(), want)
	})
	fake.Process(0, os.Getpid(), 0)
	h.stop()
}

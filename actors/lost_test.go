package actors_test

import (
	"slices"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// A device that is lost says so to all who ask and to those who wait, once to whoever may have
// the process end for it, and is no concern of the others. What was granted stays on record,
// and can be released.
func TestALostDeviceIsLostAlone(t *testing.T) {
	a, b := gpu(t, "gpu-0", 64*mib), gpu(t, "gpu-1", 64*mib)
	lost := make(chan string, 8)
	h := openWith(t, func(c *actors.Config) {
		c.Lost = func(device string, why error) { lost <- device }
	}, a, b)
	g := call[*schemas.AllocateReply](t, h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 48 * mib})
	waits := h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "waits", Wait: time.Minute, Data: &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 32 * mib, TimeoutSeconds: ptr[int64](60)}})
	a.Faults().Lose()
	refused := func(what string, r answer) {
		t.Helper()
		if r.err == nil || r.err.Code != schemas.CodeDeviceLost {
			t.Errorf("%s: %+v, %v", what, r.data, r.err)
		}
	}
	refused("a new one", <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "new", Wait: time.Minute, Data: &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 8 * mib, TimeoutSeconds: ptr[int64](60)}}))
	refused("one that waited", <-waits)
	refused("one more", <-h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "more", Data: &schemas.AllocateRequest{DeviceID: "gpu-0", SizeBytes: 8 * mib}}))
	is(t, "who is lost", <-lost, "gpu-0")
	h.events.await(t, "device_lost", func(e schemas.Event) bool {
		n, ok := e.Data.(*schemas.NodeEvent)
		return ok && e.Event == schemas.EventDeviceLost && n.DeviceID == "gpu-0" && n.Reason != ""
	})
	devices := h.Devices()
	is(t, "the one", devices[0].Health, schemas.HealthLost)
	is(t, "the other", devices[1].Health, schemas.HealthHealthy)
	call[*schemas.AllocateReply](t, h, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-1", SizeBytes: 48 * mib})
	r := call[*schemas.DeallocateReply](t, h, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: g.AllocationID})
	is(t, "released", []any{r.Confirmed, r.FreedBytes}, []any{true, int64(48 * mib)})
	if len(lost) != 0 {
		t.Errorf("%s is lost again", <-lost)
	}
	if all := h.Devices(); !slices.ContainsFunc(all, func(d schemas.Device) bool { return d.DeviceID == "gpu-0" && len(d.HealthReasons) > 0 }) {
		t.Errorf("no reason is told: %+v", all)
	}
}

package actors_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// heard is a timed house whose kernel speaks when the test says so.
func heard(t *testing.T) (h *timed, say func(device.Signal), stopped func() bool) {
	t.Helper()
	var report func(device.Signal)
	ended := false
	h = openTimed(t, nil, func(c *actors.Config) {
		c.Devices[0].Signals = func(r func(device.Signal)) (func(), error) {
			report = r
			return func() { ended = true }, nil
		}
	})
	return h, func(s device.Signal) { t.Helper(); report(s); h.pass(0) }, func() bool { return ended }
}

func (h *timed) pressure() *schemas.Pressure {
	h.t.Helper()
	return call[*schemas.GetPressureReply](h.t, h.house, schemas.ActionGetPressure, &schemas.GetPressureRequest{DeviceID: "gpu-0"}).Pressure
}

func TestASignalOfTheKernelRaisesTheLevel(t *testing.T) {
	h, say, stopped := heard(t)
	tight := device.Signal{Source: "psi", Severity: device.Tight, Hold: time.Second}
	say(tight)
	if p := h.pressure(); p.PressureLevel != "high" || p.Cause != "stall" {
		t.Fatalf("pressure is %s by %s", p.PressureLevel, p.Cause)
	}
	h.pass(500 * time.Millisecond)
	say(device.Signal{Source: "events", Severity: device.Dire, Hold: 2 * time.Second})
	if p := h.pressure(); p.PressureLevel != "critical" || p.Cause != "stall" || p.PreviousLevel != "high" {
		t.Fatalf("pressure is %s by %s", p.PressureLevel, p.Cause)
	}
	// It counts for two seconds, and ten more have to pass from critical.
	h.pass(2 * time.Second)
	h.pass(10*time.Second - time.Millisecond)
	if l := h.level(); l != "critical" {
		t.Fatalf("%s a millisecond early", l)
	}
	h.pass(time.Millisecond)
	if p := h.pressure(); p.PressureLevel != "high" || p.Cause != "dwell" {
		t.Fatalf("pressure is %s by %s", p.PressureLevel, p.Cause)
	}
	say(tight) // no change, but the dwell begins anew when it is over
	h.pass(time.Second)
	h.pass(3*time.Second - time.Millisecond)
	if l := h.level(); l != "high" {
		t.Fatalf("%s a millisecond early", l)
	}
	h.pass(time.Millisecond)
	if l := h.level(); l != "moderate" {
		t.Fatalf("it is %s", l)
	}
	if h.close(); !stopped() {
		t.Error("the source is still heard")
	}
}

func TestALostSourceMakesTheFiguresStale(t *testing.T) {
	h, say, _ := heard(t)
	if q := h.pressure().Quality; q != "fresh" {
		t.Fatalf("quality is %s", q)
	}
	say(device.Signal{Source: "psi", Lost: true, Reason: "the file is gone"})
	if p := h.pressure(); p.Quality != "stale" || p.PressureLevel != "low" {
		t.Fatalf("quality %s, level %s", p.Quality, p.PressureLevel)
	}
	say(device.Signal{Source: "psi"})
	if q := h.pressure().Quality; q != "fresh" {
		t.Fatalf("quality is %s", q)
	}
}

// A signal releases a step of unread models although the share is far from any threshold,
// and another step only if the kernel goes on complaining.
func TestASignalReleasesUnreadModels(t *testing.T) {
	h, say, _ := heard(t)
	for _, name := range []string{"a", "b", "c"} {
		path := filepath.Join(h.roots, name+".safetensors")
		if err := weightstest.Sized(60*mib, 1).WriteSafetensors(path); err != nil {
			t.Fatal(err)
		}
		call[*schemas.LoadModelReply](t, h.house, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: path})
	}
	unloaded := 0
	expect := func(n int) {
		t.Helper()
		h.events.await(t, "unloaded", func(e schemas.Event) bool {
			if e.Event == schemas.EventModelUnloaded {
				unloaded++
			}
			return unloaded == n
		})
		unloaded = 0
		for range 5 {
			h.pass(0)
		}
		if got := h.memory().ModelMemory / (60 * mib); got != int64(3-n) {
			t.Fatalf("%d models are left, want %d", got, 3-n)
		}
	}
	say(device.Signal{Source: "psi", Severity: device.Tight, Hold: time.Second})
	expect(1)
	h.pass(500 * time.Millisecond)
	expect(1)
	say(device.Signal{Source: "psi", Severity: device.Tight, Hold: time.Second})
	expect(2)
}

package actors_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
)

// sluggish is a device whose driver hangs when it is to give memory back.
type sluggish struct {
	*gated
	hangs atomic.Bool
	told  chan chan struct{}
}

func (s *sluggish) Destroy(seg device.Segment) error {
	n := seg.Bytes()
	if err := s.gated.Driver.Destroy(seg); err != nil || !s.hangs.Load() {
		return err
	}
	back := make(chan struct{})
	s.told <- back
	return &device.OwedError{Bytes: n, Why: "it hangs", Back: back}
}

// Memory that a driver does not give back counts until it does, whatever it takes.
func TestMemoryThatHangsIsNotFree(t *testing.T) {
	dev := &sluggish{gated: newGated(t, "gpu-0"), told: make(chan chan struct{}, 8)}
	h := openTimed(t, nil, func(c *actors.Config) {
		c.Devices = []actors.DeviceConfig{{Driver: dev}}
	})
	size := h.load("m", "gpu-0").Model.Residency[0].SizeBytes
	dev.hangs.Store(true)
	r := h.send(&actors.Command{Action: schemas.ActionUnloadModel, Data: &schemas.UnloadModelRequest{Name: "m"}, RequestID: "u", Wait: time.Minute})
	back := <-dev.told
	is(t, "used while the unmap hangs", h.used("gpu-0"), size)
	select {
	case a := <-r:
		t.Fatalf("unloaded while the unmap hangs: %+v, %v", a.data, a.err)
	default:
	}
	close(back)
	a := <-r
	if a.err != nil {
		t.Fatal(a.err)
	}
	is(t, "freed", a.data.(*schemas.UnloadModelReply).FreedBytes, size)
	is(t, "used", h.used("gpu-0"), int64(0))
}

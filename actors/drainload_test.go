package actors_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// slowFill is a device whose fills are done, and tell so only when they may.
type slowFill struct {
	device.Driver
	filled, may chan struct{}
}

func (s *slowFill) Fill(ctx context.Context, seg device.Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	done, err := s.Driver.Fill(ctx, seg, off, f, fileOff, n)
	s.filled <- struct{}{}
	<-s.may
	return done, err
}

// A drain that releases everything takes the memory of a load that runs: whoever waits for
// it is told.
func TestALoadThatLosesItsGrantIsAnswered(t *testing.T) {
	slow := &slowFill{Driver: gpu(t, "gpu-0", 1<<30), filled: make(chan struct{}, 64), may: make(chan struct{})}
	h := open(t, slow)
	path := filepath.Join(h.roots, "m.safetensors")
	if err := weightstest.Sized(4*mib, 1).WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	r := h.send(&actors.Command{Action: schemas.ActionLoadModel, RequestID: "l", Wait: time.Hour, Data: &schemas.LoadModelRequest{Name: "m", Path: path}})
	<-slow.filled
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if stays, err := h.Drain(ctx, true); err != nil || stays.Grants != 0 {
		t.Fatalf("drained: %+v, %v", stays, err)
	}
	close(slow.may)
	select {
	case a := <-r:
		if a.err == nil || a.err.Code != schemas.CodeDraining {
			t.Fatalf("answered: %+v, %v", a.data, a.err)
		}
	case <-ctx.Done():
		t.Fatal("nobody tells the client")
	}
}

//go:build linux

package cuda_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/fake"
)

// The second step fails at each of its calls: nothing is left once the segment is destroyed, and
// where it is tried again instead, the segment is whole.
func TestFinishThatFails(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	works(t, d) // so that the copy threads are there
	before := r.Live()
	for _, call := range []string{"cuMemAddressReserve", "cuMemMap", "cuMemSetAccess", "cuMemsetD8Async", "cuStreamSynchronize"} {
		for _, again := range []bool{false, true} {
			s, err := d.Begin(context.Background(), 2*mib, device.CreateOptions{})
			must(t, err)
			r.Fail(call, 1, outOfMemory)
			is(t, call, d.Finish(context.Background(), s), device.ErrOutOfMemory)
			is(t, "read", d.Read(s, 0, make([]byte, 1)), device.ErrUnfinished)
			if again {
				must(t, d.Finish(context.Background(), s))
				must(t, d.Write(s, 0, []byte{1}))
			}
			must(t, d.Destroy(s))
			r.nothingLeft(t, call, before)
			works(t, d)
		}
	}
}

// Weights are finished by whoever fills them first, once; that it fails is the fill's error.
func TestWeightsAreFinishedByTheirFill(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	must(t, d.MakeLanes())
	path := filepath.Join(t.TempDir(), "weights")
	must(t, os.WriteFile(path, make([]byte, 2*mib), 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	fill := func(s device.Segment, off int64) error {
		_, err := d.Fill(context.Background(), s, off, f, off, mib)
		return err
	}
	before := r.Live()
	s, err := d.Begin(context.Background(), 2*mib, device.CreateOptions{Weights: true})
	must(t, err)
	r.Fail("cuMemMap", 1, outOfMemory)
	is(t, "fill", fill(s, 0), device.ErrOutOfMemory)

	recorded := r.Record()
	var fills sync.WaitGroup
	for _, off := range []int64{0, mib} {
		fills.Go(func() {
			if err := fill(s, off); err != nil {
				t.Error(err)
			}
		})
	}
	fills.Wait()
	maps := slices.DeleteFunc(recorded(), func(c fake.Call) bool { return c.Name != "cuMemMap" })
	if len(maps) != 1 {
		t.Errorf("mapped %d times", len(maps))
	}
	must(t, d.Seal(s))
	must(t, d.Destroy(s))
	r.nothingLeft(t, "filled", before)
}

// Weights that are begun and wait to be filled hold up nobody who gives memory back.
func TestBegunWeightsHoldNobodyUp(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	s, err := d.Begin(context.Background(), 2*mib, device.CreateOptions{Weights: true})
	must(t, err)
	must(t, d.Destroy(scratch(t, d, 2*mib)))
	begun, err := d.Begin(context.Background(), 2*mib, device.CreateOptions{})
	must(t, err)
	must(t, d.Destroy(begun)) // nor does it wait for itself
	must(t, d.Destroy(s))
}

//go:build linux

package cuda_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/isobar-project/isobar/device"
)

// Weights are not cleared when they are made; what has not been filled is zero all the same
// when somebody can read it, whatever way the rest was written.
func TestWeightsAreZeroWhereNotFilled(t *testing.T) {
	r := newRig(t, true)
	d, host := r.open(t, 0), ram(t)
	ctx := context.Background()
	const n = 8 * mib
	content := noise(2 * mib)
	path := filepath.Join(t.TempDir(), "weights")
	must(t, os.WriteFile(path, content, 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	below := weights(t, host, content)
	other := scratch(t, d, 2*mib)
	must(t, d.Write(other, 0, content))

	zero := make([]byte, n)
	untouched := fresh(t, d, n)
	holds(t, "untouched", d, untouched, 0, zero)
	must(t, d.Destroy(untouched))

	for name, write := range map[string]func(s device.Segment, off int64) error{
		"fill":  func(s device.Segment, off int64) error { _, err := d.Fill(ctx, s, off, f, 0, 2*mib); return err },
		"pull":  func(s device.Segment, off int64) error { return d.Pull(ctx, s, off, below, 0, 2*mib) },
		"write": func(s device.Segment, off int64) error { return d.Write(s, off, content) },
		"copy":  func(s device.Segment, off int64) error { return d.Copy(s, off, other, 0, 2*mib) },
	} {
		s := fresh(t, d, n)
		must(t, write(s, 3*mib-5))
		want := append([]byte(nil), zero...)
		copy(want[3*mib-5:], content)
		must(t, d.Seal(s))
		holds(t, name, d, s, 0, want)
		must(t, d.Destroy(s))
	}

	// A write that fails leaves a gap, and a seal that cannot close the gaps does not seal.
	s := fresh(t, d, n)
	r.Fail("cuMemcpyDtoDAsync_v2", 1, invalidValue)
	if err := d.Copy(s, 0, other, 0, 2*mib); err == nil {
		t.Error("the copy did not fail")
	}
	r.Fail("cuMemsetD8Async", 1, invalidValue)
	if err := d.Seal(s); err == nil || s.Sealed() {
		t.Errorf("sealed with bytes of others: %v", err)
	}
	must(t, d.Seal(s))
	holds(t, "after failures", d, s, 0, zero)
	must(t, d.Destroy(s))

	// Nor is it given away by a copy down, or across.
	s = fresh(t, d, n)
	down, b := fresh(t, host, n), r.open(t, 1)
	must(t, d.Push(ctx, down, 0, s, 0, n))
	holds(t, "pushed", host, down, 0, zero)
	s = fresh(t, d, n)
	across := scratch(t, b, n)
	must(t, b.Clear(across, 0, n, 1))
	must(t, b.Pull(ctx, across, 0, s, 0, n))
	holds(t, "pulled by a peer", b, across, 0, zero)
}

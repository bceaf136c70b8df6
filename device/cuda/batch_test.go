//go:build linux

package cuda_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/device"
)

// A clear or a copy of many segments is given to the GPU at once and waited for once; what is
// told of it is all of it.
func TestABatchIsWaitedForOnce(t *testing.T) {
	r := newRig(t, true)
	d := r.open(t, 0)
	ctx := context.Background()
	works(t, d) // the copy threads are there
	const n = 2 * mib
	var to, from []device.Range
	for i := range 5 {
		s := scratch(t, d, n)
		must(t, d.Clear(s, 0, n, byte(i+1)))
		from = append(from, device.Range{Segment: s, Off: 3, Bytes: n - 3})
		to = append(to, device.Range{Segment: scratch(t, d, n), Off: 1, Bytes: n - 3})
	}
	var did int64
	calls := func(what string, launch string, do func() error) {
		names := []string{launch, "cuEventRecord", "cuEventSynchronize", "cuStreamSynchronize"}
		before := count(r, names)
		did = 0
		must(t, do())
		got := count(r, names)
		for i := range got {
			got[i] -= before[i]
		}
		if !slices.Equal(got, []int{5, 1, 1, 1}) || did != 5*(n-3) {
			t.Errorf("%s: calls %v of %q, %d bytes told", what, got, names, did)
		}
	}
	tell := func(n int64) { did += n }
	calls("copy", "cuMemcpyDtoDAsync_v2", func() error { return d.CopyAll(ctx, to, from, tell) })
	for i, p := range to {
		holds(t, "copied", d, p.Segment, 0, append(append([]byte{0}, bytes.Repeat([]byte{byte(i + 1)}, n-3)...), 0, 0))
	}
	calls("clear", "cuMemsetD8Async", func() error { return d.ClearAll(ctx, to, 9, tell) })
	for _, p := range to {
		holds(t, "cleared", d, p.Segment, 0, append(append([]byte{0}, bytes.Repeat([]byte{9}, n-3)...), 0, 0))
	}
}

// count counts calls by their names.
func count(r *rig, names []string) (out []int) {
	for _, n := range names {
		out = append(out, r.Calls(n))
	}
	return out
}

// A batch is checked before a byte of it is written, and stops with its context or a failure.
func TestABatchIsRefusedWhole(t *testing.T) {
	r := newRig(t, true)
	d, other := r.open(t, 0), r.open(t, 1)
	ctx := context.Background()
	const n = 2 * mib
	content := noise(n)
	a, b, sealed, gone, foreign := scratch(t, d, n), scratch(t, d, n), weights(t, d, content), scratch(t, d, n), scratch(t, other, n)
	must(t, d.Destroy(gone))
	all := func(s device.Segment) device.Range { return device.Range{Segment: s, Bytes: n} }
	did := func(int64) { t.Error("bytes are told of") }
	for _, c := range []struct {
		what     string
		to, from []device.Range
		want     error
	}{
		{"sealed", []device.Range{all(a), all(sealed)}, nil, device.ErrSealed},
		{"destroyed", []device.Range{all(a), all(gone)}, nil, device.ErrDestroyed},
		{"foreign", []device.Range{all(a), all(foreign)}, nil, device.ErrForeign},
		{"beyond", []device.Range{all(a), {Segment: b, Off: 1, Bytes: n}}, nil, device.ErrRange},
		{"from what is destroyed", []device.Range{all(a)}, []device.Range{all(gone)}, device.ErrDestroyed},
		{"from beyond", []device.Range{all(a)}, []device.Range{{Segment: b, Off: n, Bytes: n}}, device.ErrRange},
		{"of other sizes", []device.Range{all(a)}, []device.Range{{Segment: b, Bytes: 1}}, device.ErrRange},
		{"of other numbers", []device.Range{all(a), all(b)}, []device.Range{all(b)}, device.ErrRange},
		{"onto itself", []device.Range{all(a), {Segment: b, Bytes: 1}}, []device.Range{all(sealed), {Segment: a, Off: 5, Bytes: 1}}, device.ErrRange},
	} {
		if c.from != nil {
			is(t, c.what, d.CopyAll(ctx, c.to, c.from, did), c.want)
		} else {
			is(t, c.what, d.ClearAll(ctx, c.to, 7, did), c.want)
		}
	}
	is(t, "ended", d.ClearAll(canceled(), []device.Range{all(a)}, 7, did), context.Canceled)
	holds(t, "after refusals", d, a, 0, make([]byte, n))
	must(t, d.ClearAll(ctx, nil, 7, did))

	// Weights that a batch has not written all of are zero where it has not.
	w := fresh(t, d, n)
	for _, call := range []string{"cuMemcpyDtoDAsync_v2", "cuEventRecord", "cuEventSynchronize"} {
		r.Fail(call, 1, invalidValue)
		if err := d.CopyAll(ctx, []device.Range{all(w)}, []device.Range{all(sealed)}, did); err == nil || errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), call) {
			t.Errorf("%s fails: %v", call, err)
		}
	}
	must(t, d.Seal(w))
	holds(t, "weights", d, w, 0, make([]byte, n))
	works(t, d)
}

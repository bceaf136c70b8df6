//go:build linux

package cuda_test

import (
	"context"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// Two GPUs copy between each other, by the way that there is.
func TestPeers(t *testing.T) {
	for _, linked := range []bool{true, false} {
		r := newRig(t, true)
		r.Linked(linked)
		a, b := r.open(t, 0), r.open(t, 1)
		ctx := context.Background()
		want := []string(nil)
		if linked {
			want = []string{"gpu-1"}
		}
		if got := a.Info().Peers; strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("linked %v: the peers of gpu-0 are %q", linked, got)
		}
		const n = 6 * mib
		content := noise(n)
		from, to := weights(t, a, content), scratch(t, b, 8*mib)
		if !b.Bridges(from) || !a.Bridges(to) || a.Bridges(from) {
			t.Error("who bridges what")
		}
		way := "cuMemcpyPeerAsync"
		if linked {
			way = "cuMemcpyDtoDAsync_v2"
		}
		r.Fail(way, 1, invalidValue)
		if err := b.Pull(ctx, to, 0, from, 0, n); err == nil || !strings.Contains(err.Error(), "gpu-1: pull: "+way) {
			t.Errorf("linked %v: %v", linked, err)
		}
		must(t, b.Pull(ctx, to, 3, from, 1, n-1))
		holds(t, "pulled", b, to, 3, content[1:])
		must(t, a.Push(ctx, to, 0, from, 0, n))
		holds(t, "pushed", b, to, 0, content)
		is(t, "ended", b.Pull(canceled(), to, 0, from, 0, n), context.Canceled)
		is(t, "sealed", a.Pull(ctx, from, 0, to, 0, 1), device.ErrSealed)
		is(t, "range", b.Pull(ctx, to, 0, from, n, 1), device.ErrRange)
		must(t, a.Destroy(from))
		is(t, "destroyed", b.Pull(ctx, to, 0, from, 0, 1), device.ErrDestroyed)
		works(t, a)
		works(t, b)
	}
}

// The node names its GPUs; those that it does not use are nobody's peers.
func TestPeersByName(t *testing.T) {
	r := newRig(t, false)
	must(t, r.Configure(4, 64*mib, ""))
	var err error
	r.runtime, err = cuda.Load(cuda.Libraries{CUDA: r.path, NVML: r.path})
	must(t, err)
	d, err := r.runtime.New(cuda.Config{ID: "b", Ordinal: 1, Others: map[string]int{"c": 3, "a": 0, "b": 1}})
	must(t, err)
	defer d.Close()
	if got := d.Info().Peers; strings.Join(got, " ") != "a c" {
		t.Errorf("peers %q", got)
	}
}

//go:build linux

package cuda_test

import (
	"testing"

	"github.com/isobar-project/isobar/device/cuda"
)

// A driver that is open has something exported, so that no grant is the first; one that has no room
// for it works without.
func TestSomethingStaysExported(t *testing.T) {
	r := newRig(t, true)
	before, files := r.Live(), openFiles(t)
	c := cuda.Config{ID: "gpu-0", CopyThreads: 2, ChunkBytes: 256 << 10, Clock: r.clock}
	d, err := r.runtime.New(c)
	must(t, err)
	exports := r.Calls("cuMemExportToShareableHandle")
	if exports != 1 {
		t.Errorf("%d exports when it is open, want 1", exports)
	}
	works(t, d)
	must(t, d.Close())
	r.nothingLeft(t, "closed", before)
	if now := openFiles(t); now != files {
		t.Errorf("closed: %d descriptors are open, before %d", now, files)
	}
	for _, call := range []string{"cuMemCreate", "cuMemExportToShareableHandle"} {
		r.Fail(call, 1, outOfMemory)
		d, err := r.runtime.New(c)
		must(t, err)
		works(t, d)
		must(t, d.Close())
		r.nothingLeft(t, call+" fails", before)
	}
}

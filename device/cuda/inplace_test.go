//go:build linux

package cuda_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// A file in the page cache is copied from in place by one lane while the others read it; what
// cannot be had so is read, and nothing stays registered.
func TestFilesAreCopiedInPlace(t *testing.T) {
	r := newRig(t, true)
	ctx := context.Background()
	d, err := r.runtime.New(cuda.Config{ID: "gpu-0", CopyThreads: 2, ChunkBytes: 256 << 10, InPlaceBytes: mib, RegisterBytes: -1, Clock: r.clock})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	must(t, d.MakeLanes())
	const n, skip = 9*mib + 12345, 4099
	content := noise(n + skip)
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, content, 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	before := r.Live()
	registrations := func() int { return r.Calls("cuMemHostRegister_v2") }
	fill := func(what string, least, most int) {
		t.Helper()
		s := fresh(t, d, 10*mib)
		calls := registrations()
		if _, err := d.Fill(ctx, s, 7, f, skip, n); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := registrations() - calls; got < least || got > most {
			t.Errorf("%s: %d pieces were registered, want %d to %d", what, got, least, most)
		}
		holds(t, what, d, s, 7, content[skip:])
		must(t, d.Destroy(s))
		r.nothingLeft(t, what, before)
	}
	fill("in the cache", 1, 9)
	for _, code := range []int{invalidValue, notSupported, outOfMemory} {
		r.Fail("cuMemHostRegister_v2", 1, code)
		fill("that is not registered", 1, 1)
	}

	// Memory of another driver, likewise.
	host := ram(t)
	below, up := weights(t, host, content[:8*mib]), scratch(t, d, 8*mib)
	calls := registrations()
	must(t, d.Pull(ctx, up, 0, below, 0, 8*mib))
	holds(t, "pulled", d, up, 0, content[:8*mib])
	if registrations() == calls {
		t.Error("main memory was read")
	}

	// A copy that fails, or a file that ends early, fails the fill and leaves nothing.
	to := fresh(t, d, 10*mib)
	for _, call := range []string{"cuMemcpyHtoDAsync_v2", "cuEventRecord", "cuEventSynchronize"} {
		r.Fail(call, 1, invalidValue)
		if _, err := d.Fill(ctx, to, 0, f, 0, n); err == nil || errors.Is(err, device.ErrLost) {
			t.Errorf("%s fails: %v", call, err)
		}
	}
	if got, err := d.Fill(ctx, to, 0, f, n, 8*mib); !errors.Is(err, io.ErrUnexpectedEOF) || got > skip {
		t.Errorf("of a file that ends: %d bytes, %v", got, err)
	}
	must(t, os.Truncate(path, mib))
	if _, err := d.Fill(ctx, to, 0, f, 0, n); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("of a file that was truncated: %v", err)
	}
	_, err = d.Fill(canceled(), to, 0, f, 0, mib)
	is(t, "ended", err, context.Canceled)
	must(t, d.Destroy(to))
	must(t, d.Destroy(up))
	r.nothingLeft(t, "failures", before)
	works(t, d)
}

package weights_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// drawSpec makes a model to write; block types only where GGUF is to hold them.
func drawSpec(t *rapid.T, types []string) weightstest.Spec {
	s := weightstest.Spec{Seed: rapid.Uint64().Draw(t, "seed")}
	for i := range rapid.IntRange(1, 20).Draw(t, "tensors") {
		x := weightstest.Tensor{
			Name:  fmt.Sprintf("%s.%d", rapid.SampledFrom([]string{"layer", "größe", `q"\`, "\n"}).Draw(t, "name"), i),
			DType: rapid.SampledFrom(types).Draw(t, "dtype"),
			Shape: rapid.SliceOfN(rapid.Int64Range(0, 40), 0, 3).Draw(t, "shape"),
		}
		switch x.DType { // whole bytes, whole blocks
		case "F4", "F6_E2M3":
			x.Shape = append(x.Shape, 4)
		case "GGUF_Q8_0", "GGUF_Q4_K":
			x.Shape = append(x.Shape, 256)
		}
		s.Tensors = append(s.Tensors, x)
	}
	return s
}

func TestWhatIsWrittenIsLoaded(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		format := rapid.SampledFrom([]string{"safetensors", "sharded", "gguf"}).Draw(rt, "format")
		types := []string{"F32", "F16", "BF16", "I8", "F64"}
		if format == "gguf" {
			types = append(types, "GGUF_Q8_0", "GGUF_Q4_K")
		} else {
			types = append(types, "F4", "F6_E2M3", "BOOL", "F8_E4M3", "C64")
		}
		s := drawSpec(rt, types)
		path, err := filepath.Join(dir, "m."+format), error(nil)
		switch format {
		case "safetensors":
			err = s.WriteSafetensors(path)
		case "gguf":
			err = s.WriteGGUF(path)
		case "sharded":
			path, err = s.WriteSharded(dir, rapid.Int64Range(1, 100_000).Draw(rt, "shard"))
		}
		if err != nil {
			rt.Fatal(err)
		}
		m, err := weights.Inspect(context.Background(), path, unconfined)
		if err != nil {
			rt.Fatal(err)
		}
		defer m.Close()
		l := m.Layout(weights.LayoutOptions{
			SegmentBytes: rapid.SampledFrom([]int64{4096, 64 << 10, 1 << 30}).Draw(rt, "segment"),
			ChunkBytes:   rapid.SampledFrom([]int64{512, 8 << 20}).Draw(rt, "chunk"),
		})
		sink := weightstest.NewMemory(l)
		var steps []int64
		joined := rapid.SampledFrom([]int64{0, 0, 700, 5000, 1 << 30}).Draw(rt, "joined")
		err = weights.Load(context.Background(), m, l, sink, weights.LoadOptions{
			Workers:   rapid.IntRange(0, 5).Draw(rt, "workers"),
			ReadBytes: joined,
			Progress:  func(done int64) { steps = append(steps, done) },
		})
		if err != nil {
			rt.Fatal(err)
		}
		checkLoaded(t, s, m, l, sink)
		if !slices.IsSorted(steps) || len(steps) > len(l.Reads) || joined == 0 && len(steps) != len(l.Reads) || len(steps) > 0 && steps[len(steps)-1] != l.ReadBytes {
			rt.Fatalf("progress %v of %d reads, %d bytes", steps, len(l.Reads), l.ReadBytes)
		}
	})
}

// Reads that continue each other are one, up to what the sink wants at a time.
func TestReadsAreJoined(t *testing.T) {
	l := newLoading(t)
	var mu sync.Mutex
	var sizes []int64
	l.Before = func(_ context.Context, r weights.Read) error {
		mu.Lock()
		defer mu.Unlock()
		sizes = append(sizes, r.Bytes)
		return nil
	}
	err := weights.Load(context.Background(), l.Model, l.Layout, l.Memory, weights.LoadOptions{Workers: 1, ReadBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	checkLoaded(t, l.spec, l.Model, l.Layout, l.Memory)
	if len(sizes) != 4 || slices.Max(sizes) != 1<<20 {
		t.Errorf("%d reads of %v bytes, of 4 MiB", len(sizes), sizes)
	}
}

// loading is a model of 64 chunks, ready to load.
type loading struct {
	path string
	spec weightstest.Spec
	*weights.Model
	*weights.Layout
	*weightstest.Memory
}

func newLoading(t *testing.T) loading {
	t.Helper()
	s := weightstest.Sized(4<<20, 9)
	path := write(t, s, filepath.Join(t.TempDir(), "m.safetensors"))
	m := mustInspect(t, path)
	l := m.Layout(weights.LayoutOptions{ChunkBytes: 64 << 10})
	return loading{path, s, m, l, weightstest.NewMemory(l)}
}

// atChunk calls f when the n-th chunk begins.
func (l *loading) atChunk(n int64, f func() error) {
	var count atomic.Int64
	l.Before = func(context.Context, weights.Read) error {
		if count.Add(1) == n {
			return f()
		}
		return nil
	}
}

func (l *loading) load(ctx context.Context) error {
	return weights.Load(ctx, l.Model, l.Layout, l.Memory, weights.LoadOptions{Workers: 3})
}

func TestFileChangesWhileLoading(t *testing.T) {
	for name, c := range map[string]struct {
		change func(path string) error
		chunk  int64
	}{
		"truncated":               {func(p string) error { return os.Truncate(p, 1<<20) }, 20},
		"truncated to the header": {func(p string) error { return os.Truncate(p, 100) }, 2},
		"cut after it was read":   {func(p string) error { return os.Truncate(p, 4<<20) }, 64},
		"grown":                   {func(p string) error { return appendTo(p, "x") }, 5},
		"written in place":        {overwrite, 5},
		"written, time set back":  {overwriteAndSetBack, 5},
		"swapped by a rename": {func(p string) error {
			if err := weightstest.Sized(4<<20, 10).WriteSafetensors(p + ".new"); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		}, 5},
		"removed": {os.Remove, 5},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoading(t)
			l.atChunk(c.chunk, func() error { return c.change(l.path) })
			err := l.load(context.Background())
			var ce *weights.ChangedError
			if !errors.As(err, &ce) || ce.File != l.path || !errors.Is(err, weights.ErrInvalidModel) {
				t.Fatalf("got %v, want a ChangedError", err)
			}
		})
	}
}

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}

func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("y"), 2<<20)
	return errors.Join(err, f.Close())
}

func overwriteAndSetBack(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := overwrite(path); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}

func TestCancelStopsAtAChunk(t *testing.T) {
	l := newLoading(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the client went away")
	l.atChunk(10, func() error { cancel(why); return nil })
	var last int64
	err := weights.Load(ctx, l.Model, l.Layout, l.Memory, weights.LoadOptions{Workers: 3, Progress: func(done int64) { last = done }})
	if !errors.Is(err, why) {
		t.Fatalf("got %v", err)
	}
	// At most the chunks in flight were still read.
	if chunk := int64(64 << 10); last > 13*chunk {
		t.Errorf("%d bytes were read after a cancel at chunk 10", last)
	}
}

func TestCancelledBeforeItBegins(t *testing.T) {
	l := newLoading(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.atChunk(1, func() error { t.Error("a chunk was read"); return nil })
	if err := l.load(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestFirstErrorEndsTheLoad(t *testing.T) {
	l := newLoading(t)
	broken := errors.New("no memory")
	var mu sync.Mutex
	var after int
	var failed bool
	l.Before = func(ctx context.Context, r weights.Read) error {
		mu.Lock()
		defer mu.Unlock()
		if failed {
			after++
			return fmt.Errorf("later: %w", ctx.Err())
		}
		if r.Offset >= 1<<20 {
			failed = true
			return broken
		}
		return nil
	}
	err := l.load(context.Background())
	if !errors.Is(err, broken) || errors.Is(err, weights.ErrInvalidModel) || errors.Is(err, weights.ErrNotReadable) {
		t.Fatalf("got %v", err)
	}
	if after > 2 {
		t.Errorf("%d chunks were begun after the failure", after)
	}
}

func TestWhoseFaultAFillIs(t *testing.T) {
	for _, c := range []struct {
		err, sentinel error
	}{
		{io.ErrUnexpectedEOF, weights.ErrInvalidModel},
		{&os.PathError{Op: "read", Path: "x", Err: os.ErrPermission}, weights.ErrNotReadable},
	} {
		l := newLoading(t)
		l.atChunk(3, func() error { return c.err })
		if err := l.load(context.Background()); !errors.Is(err, c.sentinel) {
			t.Errorf("fill failed with %v: load with %v", c.err, err)
		}
	}
}

func TestLayoutOfAnotherModel(t *testing.T) {
	l := newLoading(t)
	other := mustInspect(t, write(t, tiny("a"), filepath.Join(t.TempDir(), "m.safetensors")))
	if err := weights.Load(context.Background(), other, l.Layout, l.Memory, weights.LoadOptions{}); err == nil {
		t.Fatal("was loaded")
	}
}

func TestTwoLoadsOfOneModel(t *testing.T) {
	l := newLoading(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			sink := weightstest.NewMemory(l.Layout)
			if err := weights.Load(context.Background(), l.Model, l.Layout, sink, weights.LoadOptions{Workers: 2}); err != nil {
				t.Error(err)
				return
			}
			checkLoaded(t, l.spec, l.Model, l.Layout, sink)
		})
	}
	wg.Wait()
}

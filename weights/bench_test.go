package weights_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// BenchmarkInspect reads the header of a model of 2,000 tensors.
func BenchmarkInspect(b *testing.B) {
	s := weightstest.Spec{}
	for i := range 2000 {
		s.Tensors = append(s.Tensors, weightstest.Tensor{Name: fmt.Sprintf("model.layers.%d.mlp.experts.%d.weight", i/8, i%8), DType: "BF16", Shape: []int64{4, 8}})
	}
	for _, format := range []string{"safetensors", "gguf"} {
		b.Run(format, func(b *testing.B) {
			path := write(b, s, filepath.Join(b.TempDir(), "m."+format))
			b.ReportAllocs()
			for b.Loop() {
				m, err := weights.Inspect(context.Background(), path, unconfined)
				if err != nil {
					b.Fatal(err)
				}
				m.Close()
			}
		})
	}
}

// BenchmarkLoad loads a cached file into touched memory, and beside it reads the
// same ranges with a bare pread loop of as many threads.
func BenchmarkLoad(b *testing.B) {
	path := write(b, weightstest.Sized(220<<20, 1), filepath.Join(b.TempDir(), "m.safetensors"))
	m := mustInspect(b, path)
	l := m.Layout(weights.LayoutOptions{})
	sink := weightstest.NewMemory(l)
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("load/%d", workers), func(b *testing.B) {
			b.SetBytes(l.ReadBytes)
			for b.Loop() {
				if err := weights.Load(context.Background(), m, l, sink, weights.LoadOptions{Workers: workers}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("pread/%d", workers), func(b *testing.B) {
			f, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			b.SetBytes(l.ReadBytes)
			for b.Loop() {
				barePread(b, f, l, sink, workers)
			}
		})
	}
}

func barePread(b *testing.B, f *os.File, l *weights.Layout, sink *weightstest.Memory, workers int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(l.Reads) {
					return
				}
				r := l.Reads[i]
				if _, err := f.ReadAt(sink.Segments[r.Segment][r.Offset:r.Offset+r.Bytes], r.FileOffset); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

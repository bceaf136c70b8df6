package weights_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// A model is described, laid out and loaded.
func Example() {
	dir, err := os.MkdirTemp("", "models")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	spec := weightstest.Spec{Tensors: []weightstest.Tensor{
		{Name: "embed.weight", DType: "BF16", Shape: []int64{1000, 64}},
		{Name: "embed.bias", DType: "F32", Shape: []int64{64}},
	}}
	if err := spec.WriteSafetensors(filepath.Join(dir, "tiny.safetensors")); err != nil {
		panic(err)
	}

	roots, err := weights.NewRoots(dir)
	if err != nil {
		panic(err)
	}
	model, err := weights.Inspect(context.Background(), "tiny.safetensors", weights.Options{Roots: roots})
	if err != nil {
		panic(err)
	}
	defer model.Close()
	layout := model.Layout(weights.LayoutOptions{Granularity: 4096})
	for _, p := range layout.Placed {
		t := model.Tensors[p.Tensor]
		fmt.Println(t.Name, t.DType, t.Shape, "segment", p.Segment, "offset", p.Offset)
	}

	memory := weightstest.NewMemory(layout) // on a node: the device's segments
	if err := weights.Load(context.Background(), model, layout, memory, weights.LoadOptions{}); err != nil {
		panic(err)
	}
	fmt.Println(layout.ReadBytes, "bytes in", layout.Segments[0].Bytes)
	// Output:
	// embed.weight BF16 [1000 64] segment 0 offset 0
	// embed.bias F32 [64] segment 0 offset 128000
	// 128256 bytes in 131072
}

// A path that leads out of the roots is refused, whatever is there.
func ExampleRoots() {
	dir, err := os.MkdirTemp("", "models")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	roots, err := weights.NewRoots(dir)
	if err != nil {
		panic(err)
	}
	_, err = weights.Inspect(context.Background(), "../../etc/passwd", weights.Options{Roots: roots})
	_, outside := err.(*weights.OutsideError)
	fmt.Println(outside)
	// Output: true
}

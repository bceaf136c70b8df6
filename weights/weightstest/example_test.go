package weightstest_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/isobar-project/isobar/weights/weightstest"
)

// A file of an exact size, written as a stream and checked anywhere.
func ExampleSized() {
	dir, err := os.MkdirTemp("", "models")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	spec := weightstest.Sized(1<<20, 42)
	if err := spec.WriteGGUF(filepath.Join(dir, "model.gguf")); err != nil {
		panic(err)
	}
	b := make([]byte, 16)
	spec.Fill(0, 1000, b)
	fmt.Println(spec.Tensors[0].Name, spec.Check(0, 1000, b))
	// Output: layers.0.rest.weight <nil>
}

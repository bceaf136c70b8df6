//go:build linux

package cuda_test

import (
	"context"
	"fmt"
	"os"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
)

// The life of a model on a GPU: filled from a file, sealed, shared with a session, given back.
func Example() {
	ctx := context.Background()
	// On a machine with a GPU: cuda.Load(cuda.Libraries{}). Here it may be the fake driver.
	runtime, err := cuda.Load(theLane().libraries)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer runtime.Close()
	gpu, err := runtime.New(cuda.Config{ID: "gpu-0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gpu.Close()

	file, err := os.CreateTemp("", "model")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(file.Name())
	defer file.Close()
	weights := make([]byte, 2<<20)
	copy(weights, "the weights of a model")
	if _, err := file.Write(weights); err != nil {
		fmt.Println(err)
		return
	}

	segment, err := gpu.Create(ctx, 2<<20, device.CreateOptions{Weights: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := gpu.Fill(ctx, segment, 0, file, 0, 2<<20); err != nil {
		fmt.Println(err)
		return
	}
	if err := gpu.Seal(segment); err != nil {
		fmt.Println(err)
		return
	}
	// What a session gets, to be imported with cuMemImportFromShareableHandle.
	session, err := gpu.Export(segment, device.ReadOnly)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer session.Close()

	b := make([]byte, 22)
	if err := gpu.Read(segment, 0, b); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", b)
	_, err = gpu.Released(segment)
	fmt.Println(err)
	fmt.Println(gpu.Destroy(segment))
	// Output:
	// the weights of a model
	// prove release: release cannot be proved by this driver
	// <nil>
}

//go:build linux

package fake_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda"
	"github.com/isobar-project/isobar/device/cuda/fake"
)

// A GPU of 64 MiB that another process uses, and whose driver then has no memory for once.
func Example() {
	dir, err := os.MkdirTemp("", "fake")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path, err := fake.Build(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	library, err := fake.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := library.Configure(1, 64<<20, ""); err != nil {
		fmt.Println(err)
		return
	}

	runtime, err := cuda.Load(cuda.Libraries{CUDA: path, NVML: path})
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
	fmt.Println(gpu.Info().Name)

	library.Process(0, os.Getppid(), 40<<20)
	sample, err := gpu.Sample()
	fmt.Println(len(sample.Others), "other has", sample.Others[0].Bytes>>20, "MiB", err)

	library.Fail("cuMemCreate", 1, 2)
	_, err = gpu.Create(context.Background(), 2<<20, device.CreateOptions{})
	fmt.Println(errors.Is(err, device.ErrOutOfMemory))
	_, err = gpu.Create(context.Background(), 2<<20, device.CreateOptions{})
	fmt.Println(err)
	// Output:
	// Isobar fake GPU 0, 64 MiB
	// 1 other has 40 MiB <nil>
	// true
	// <nil>
}

//go:build linux

package hostram_test

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostram"
)

// The life of a model in main memory: filled from a file, sealed, shared with a
// session, proved to be released, given back.
func Example() {
	ctx := context.Background()
	ram, err := hostram.New(hostram.Config{ID: "ram-0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ram.Close()

	file, err := os.CreateTemp("", "model")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(file.Name())
	defer file.Close()
	weights := make([]byte, 1<<20)
	copy(weights, "the weights of a model")
	if _, err := file.Write(weights); err != nil {
		fmt.Println(err)
		return
	}

	segment, err := ram.Create(ctx, 1<<20, device.CreateOptions{Weights: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := ram.Fill(ctx, segment, 0, file, 0, 1<<20); err != nil {
		fmt.Println(err)
		return
	}
	if err := ram.Seal(segment); err != nil {
		fmt.Println(err)
		return
	}

	// What a session gets; it would be another process.
	session, err := ram.Export(segment, device.ReadOnly)
	if err != nil {
		fmt.Println(err)
		return
	}
	mapped, err := unix.Mmap(int(session.Fd()), 0, 1<<20, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		fmt.Println(err)
		return
	}
	session.Close()
	fmt.Printf("%s\n", mapped[:22])

	released, _ := ram.Released(segment)
	fmt.Println("released while mapped:", released)
	_ = unix.Munmap(mapped)
	released, _ = ram.Released(segment)
	fmt.Println("released after:", released)
	fmt.Println(ram.Destroy(segment))
	// Output:
	// the weights of a model
	// released while mapped: false
	// released after: true
	// <nil>
}

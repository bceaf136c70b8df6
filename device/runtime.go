package device

import "github.com/isobar-project/isobar/clock"

// GPU is one that a process may use, before anything is done with it.
type GPU struct {
	// Ordinal is its number in this process, from 0; CUDA_VISIBLE_DEVICES changes it.
	Ordinal int
	// Name is the model, UUID its identity wherever it is plugged in.
	Name, UUID string
	// Bytes is what it has for programs.
	Bytes int64
	// NUMANode is the node that it is plugged into, -1 where that is not known.
	NUMANode int
	// Lacks says why segments cannot be had of it; nil where they can.
	Lacks error
}

// Runtime is a GPU driver of this process, loaded and initialised. It is safe for use by
// several goroutines; Close waits for nobody and comes last.
type Runtime interface {
	// GPUs lists what this process may use. No GPU is no error.
	GPUs() ([]GPU, error)
	// Open takes one into use, under the id of its device; several may be opened at once.
	// numbers are the ordinals of all GPUs that are to be devices, by their ids: that one's
	// own, and those that may be its peers. It takes some tenths of a second. A nil clock is
	// the real one.
	Open(id string, numbers map[string]int, c clock.Clock) (Driver, error)
	// Close gives the driver back, once all its devices are closed.
	Close() error
}

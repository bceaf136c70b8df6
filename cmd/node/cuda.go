package main

import (
	"fmt"
	"path/filepath"

	"github.com/isobar-project/isobar/node"
)

// cudaName is what the program with the driver of GPUs is called. It is this one again, built
// with the tag cuda, and linked dynamically; see docs/decisions/0034.
const cudaName = "isobar-cuda"

// becomeCUDA replaces this process by the program that has the driver of GPUs, where the machine
// has some, or a driver or device was named, and that program lies beside this one. It returns
// where this one goes on: the node then says what it lacks.
func (k *call) becomeCUDA(cfg *node.Config, exe string) error {
	other := filepath.Join(filepath.Dir(exe), cudaName)
	if k.cuda || !cfg.WantsGPUs() || !cfg.LoadsGPUDriver() && !k.exists(node.NVIDIAControl) || !k.exists(other) {
		return nil
	}
	if err := k.become(other, append([]string{k.name}, k.args...)); err != nil {
		return fmt.Errorf("%s cannot be started: %w; --gpus off runs without GPUs", other, err)
	}
	return nil
}

// static is the program that is started as the vault: the static one where it lies beside, so
// that the keeper of the memory depends on no library of the machine.
func (k *call) static(exe string) string {
	if other := filepath.Join(filepath.Dir(exe), "isobar"); k.cuda && k.exists(other) {
		return other
	}
	return exe
}

//go:build !cuda

package node

import (
	"errors"
	"os"

	"github.com/isobar-project/isobar/device"
)

// HasGPUs is true of a program that can use GPUs.
const HasGPUs = false

// Why a static program has no GPUs; see docs/decisions/0034.
var (
	errStatic   = errors.New("this program is static and cannot load the GPU's driver: isobar-cuda can, which isobar run starts where it lies beside isobar")
	errNoDriver = errors.New("there is no NVIDIA driver here (no " + NVIDIAControl + ")")
)

func loadGPUs(cudaLibrary, _ string) (device.Runtime, error) {
	if _, err := os.Stat(NVIDIAControl); err != nil && cudaLibrary == "" {
		return nil, errNoDriver
	}
	return nil, errStatic
}

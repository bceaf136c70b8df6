//go:build linux

package sim_test

import (
	"os"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/conformance"
	"github.com/isobar-project/isobar/device/sim"
)

var suite = conformance.Suite{Open: func() (device.Driver, error) {
	return sim.New(sim.Config{ID: "gpu-0", Bytes: 160 << 20})
}}

func TestMain(m *testing.M) { os.Exit(suite.Main(m)) }

func TestConformance(t *testing.T) { suite.Run(t) }

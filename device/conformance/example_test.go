//go:build linux

package conformance_test

import (
	"os"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/conformance"
	"github.com/isobar-project/isobar/device/sim"
)

var suite = conformance.Suite{Open: func() (device.Driver, error) {
	return sim.New(sim.Config{ID: "gpu-0", Bytes: 128 << 20})
}}

// The two functions that a driver's test package needs; in it they are called
// TestMain and TestConformance.
func ExampleSuite() {
	testMain := func(m *testing.M) { os.Exit(suite.Main(m)) }
	testConformance := func(t *testing.T) { suite.Run(t) }
	_, _ = testMain, testConformance
	// Output:
}

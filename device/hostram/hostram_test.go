//go:build linux

package hostram_test

import (
	"os"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/conformance"
	"github.com/isobar-project/isobar/device/hostram"
)

var suite = conformance.Suite{Open: func() (device.Driver, error) {
	return hostram.New(hostram.Config{ID: "ram-0", PhysicalBytes: 160 << 20})
}}

func TestMain(m *testing.M) { os.Exit(suite.Main(m)) }

func TestConformance(t *testing.T) { suite.Run(t) }

// Machines without huge pages take other ways through the same contract.
func TestConformanceOnSmallPages(t *testing.T) {
	conformance.Suite{Open: func() (device.Driver, error) {
		return hostram.New(hostram.Config{ID: "ram-0", PhysicalBytes: 160 << 20, SmallPages: true})
	}}.Run(t)
}

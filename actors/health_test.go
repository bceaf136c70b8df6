package actors_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
)

// unseen is a device whose figures cannot be had yet.
type unseen struct {
	device.Driver
	may chan struct{}
}

func (u *unseen) Sample() (device.Sample, error) {
	<-u.may
	return u.Driver.Sample()
}

// A node that has just begun is as healthy as it can know; only figures that stay away
// count against it.
func TestANewDeviceIsHealthyUntilItsFiguresAreMissed(t *testing.T) {
	u := &unseen{may: make(chan struct{})}
	h := openTimed(t, nil, func(c *actors.Config) {
		u.Driver = c.Devices[0].Driver
		c.Devices[0].Driver = u
	})
	defer close(u.may)
	score := func() float64 {
		return call[*schemas.GetStatusReply](t, h.house, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: "gpu-0"}).HealthScore
	}
	if s := score(); s != 100 {
		t.Fatalf("before the first sample its score is %v", s)
	}
	h.pass(10 * time.Second)
	if s := score(); s != 80 {
		t.Fatalf("ten seconds without a sample its score is %v", s)
	}
}

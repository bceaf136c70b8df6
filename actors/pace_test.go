package actors_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
)

// sampledHouse is a timed house whose device expects nothing to grow that does not grow yet.
func sampledHouse(t *testing.T) (*timed, *sampledDriver) {
	t.Helper()
	d := &sampledDriver{gate: make(chan chan struct{}, 1)}
	h := openTimed(t, nil, func(c *actors.Config) {
		d.Driver = c.Devices[0].Driver.(*sim.Driver)
		c.Devices[0].Driver = d
		c.Devices[0].Sampling = pressure.Sampling{FastestFill: 1, Patience: patience}
		c.Clock = begun{c.Clock, d}
	})
	return h, d
}

// patience tells the timer of a sample under way from all others.
const patience = 3*time.Second + time.Nanosecond

// begun counts samples when they begin and when they have been taken note of.
type begun struct {
	clock.Clock
	d *sampledDriver
}

func (b begun) AfterFunc(d time.Duration, f func()) clock.Timer {
	t := b.Clock.AfterFunc(d, f)
	if d != patience {
		return t
	}
	b.d.begun.Add(1)
	return overdue{t, b.d}
}

// overdue is the timer of a sample under way.
type overdue struct {
	clock.Timer
	d *sampledDriver
}

func (o overdue) Stop() bool {
	defer o.d.done.Add(1)
	return o.Timer.Stop()
}

// through lets time pass, and waits for the sample that it may have brought.
func (d *sampledDriver) through(h *timed, span time.Duration) {
	h.t.Helper()
	h.pass(span)
	for d.done.Load() < d.begun.Load() {
		runtime.Gosched()
	}
	h.pass(0)
}

// sampledDriver counts samples, and can be made to owe one.
type sampledDriver struct {
	*sim.Driver
	gate        chan chan struct{}
	begun, done atomic.Int64
}

func (d *sampledDriver) Sample() (device.Sample, error) {
	select {
	case g := <-d.gate:
		<-g
	default:
	}
	return d.Driver.Sample()
}

// The node looks once a second at rest, and as often as the headroom asks for at the speed at
// which others fill the device: critical is said before it is full.
func TestTheSamplingPeriodFollowsWhatOthersFill(t *testing.T) {
	h, d := sampledHouse(t)
	d.SetForeign(400 * mib)
	d.through(h, 0)
	before := d.done.Load()
	for range 10 {
		d.through(h, time.Second)
	}
	if n := d.done.Load() - before; n != 10 {
		t.Fatalf("%d samples in ten seconds of rest", n)
	}
	before = d.done.Load()
	for used := 400 * mib; h.level() != schemas.PressureCritical; used += 4 * mib { // 400 MiB/s
		if used >= 1<<30 {
			t.Fatalf("the device is full, and the level is %s", h.level())
		}
		d.SetForeign(int64(used))
		d.through(h, 10*time.Millisecond)
	}
	if n := d.done.Load() - before; n < 3 {
		t.Errorf("%d samples until critical", n)
	}
}

// A sample that the driver owes makes the figures stale until it comes.
func TestALateSampleMakesTheFiguresStale(t *testing.T) {
	h, d := sampledHouse(t)
	d.through(h, 0)
	d.through(h, time.Second)
	if q := h.pressure().Quality; q != schemas.QualityFresh {
		t.Fatalf("quality %s", q)
	}
	gate := make(chan struct{})
	d.gate <- gate
	for n := d.begun.Load(); d.begun.Load() == n; {
		h.pass(10 * time.Millisecond)
	}
	h.pass(patience - 20*time.Millisecond)
	if q := h.pressure().Quality; q != schemas.QualityFresh {
		t.Fatalf("quality %s too early", q)
	}
	h.pass(20 * time.Millisecond)
	if q := h.pressure().Quality; q != schemas.QualityStale {
		t.Fatalf("quality %s with a sample overdue", q)
	}
	close(gate)
	d.through(h, 0)
	if q := h.pressure().Quality; q != schemas.QualityFresh {
		t.Fatalf("quality %s after the sample came", q)
	}
}

// What others are about to fill raises the level before they have, with a target as if they
// had.
func TestGrowthOfOthersIsForeseen(t *testing.T) {
	h, d := sampledHouse(t)
	for range 12 {
		d.through(h, time.Second)
	}
	used := int64(0)
	for range 180 {
		used += 4 * mib // 40 MiB/s
		d.SetForeign(used)
		d.through(h, 100*time.Millisecond)
		if p := h.pressure(); p.PressureLevel != schemas.PressureLow {
			if p.Cause != schemas.CauseForecast || p.PressureLevel != schemas.PressureModerate || p.UtilizationPercentage >= 70 || p.TargetBytes <= 0 {
				t.Fatalf("pressure %+v", p)
			}
			break
		}
	}
	if h.level() != schemas.PressureModerate {
		t.Fatalf("at %d MiB the level is %s", used/mib, h.level())
	}
	// They give some of it back, and it falls again.
	d.SetForeign(600 * mib)
	for range 6 {
		d.through(h, time.Second)
	}
	if l := h.level(); l != schemas.PressureLow {
		t.Errorf("%s although nothing grows", l)
	}
}

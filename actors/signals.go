package actors

import (
	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/pressure"
)

// listen begins to hear what the kernel says of the device beside its figures. A machine on
// which nothing can be heard works on its figures alone.
func (d *deviceActor) listen() {
	if d.cfg.Signals == nil {
		return
	}
	stop, err := d.cfg.Signals(func(s device.Signal) { d.house.monitor.signal(d, s) })
	if err != nil {
		d.house.log.Warn("the kernel's signals of pressure cannot be heard", "device", d.id, "error", err)
		return
	}
	d.deafen = stop
}

// signal takes what the kernel says of a device. It may be called from any goroutine.
func (m *monitorActor) signal(d *deviceActor, sig device.Signal) {
	m.tell(seam.SystemLane, func() {
		s := m.state(d)
		now := m.house.cfg.Clock.Now()
		was := s.stalls.Deaf()
		if sig.Lost {
			s.stalls.Lost(sig.Source)
			m.house.log.Warn("a source of pressure is lost", "device", d.id, "source", sig.Source, "why", sig.Reason)
		} else {
			s.stalls.Note(sig.Source, demanded(sig.Severity), sig.Hold, now)
		}
		cause := pressure.CauseStall
		if was != s.stalls.Deaf() {
			cause = pressure.CauseSourceLost
		}
		if sig.Severity > device.Calm {
			s.eased = false
			m.house.log.Debug("the kernel says that memory is tight", "device", d.id, "source", sig.Source, "why", sig.Reason)
			// The figures are behind by now.
			d.tell(seam.SystemLane, d.sampleSoon)
		}
		if s.last.device != nil {
			m.step(s, cause)
		}
	})
}

// demanded is the level that a signal calls for.
func demanded(s device.Severity) pressure.Level {
	switch s {
	case device.Tight:
		return pressure.High
	case device.Dire:
		return pressure.Critical
	}
	return pressure.Low
}

// next is when a gauge has something to say by itself: a dwell or reminder of its level, or
// a signal that ceases to count.
func (s *gaugeState) next(now clock.Instant) (clock.Instant, bool) {
	at, ok := s.eval.Next()
	if t, counts := s.stalls.Next(now); counts && (!ok || t < at) {
		return t, true
	}
	return at, ok
}

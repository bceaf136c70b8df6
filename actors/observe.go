package actors

import (
	"fmt"
	"slices"
	"time"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// Observer is told what figures and traces are made of. Its methods are called on the
// actors' goroutines: they must not block, and should cost next to nothing. It is declared
// here, where it is used; package node implements it.
type Observer interface {
	// Granted says that a device granted memory that had waited that long for room, 0 for
	// what was granted at once.
	Granted(device string, class schemas.Class, queued time.Duration)
	// Completed says how a command ended: with reply data, or with an error's code. Other
	// than the bus, which hears of each answer, it hears of a command that was answered
	// «queued» when it is done.
	Completed(c *Command, data any, code schemas.Code)
	// DeviceWarnings is everything that is wrong with a device now, told when it changes.
	DeviceWarnings(device string, warnings []schemas.HealthWarning)
}

// nobody observes.
type nobody struct{}

func (nobody) Granted(string, schemas.Class, time.Duration)   {}
func (nobody) Completed(*Command, any, schemas.Code)          {}
func (nobody) DeviceWarnings(string, []schemas.HealthWarning) {}

// Trace says which trace a command belongs to, in the terms of W3C trace context.
type Trace struct {
	ID [16]byte
	// Parent is the caller's span, zero where the trace begins here. Span is the command's.
	Parent, Span [8]byte
}

// granted tells the observer of grants among the core's outcomes.
func (h *House) granted(device string, o *ledger.Outcome) {
	if o.Kind == ledger.OutcomeGranted {
		h.cfg.Observer.Granted(device, schemas.Class(o.Grant.Class), time.Duration(o.Queued))
	}
}

// ailment is what a device's warnings are made of, without what changes at every look.
type ailment struct {
	health        device.Health
	stale         bool
	drift, zombie bool
	pids          []int32 // who have released memory
	reasons       []string
}

func (a *ailment) same(b *ailment) bool {
	return a.health == b.health && a.stale == b.stale && a.drift == b.drift && a.zombie == b.zombie && slices.Equal(a.pids, b.pids) && slices.Equal(a.reasons, b.reasons)
}

// warn tells the observer what is wrong, where that is something else than before.
func (d *deviceActor) warn(stale bool) {
	f := d.core.Figures()
	a := ailment{health: d.health, stale: stale, drift: d.sampling.drift != 0, zombie: f.Zombie > 0, reasons: d.state.Load().reasons}
	kept := int64(0)
	if a.zombie {
		a.pids, kept = d.core.Pinned()
	}
	if d.ails != nil && a.same(d.ails) {
		return
	}
	d.ails = &a
	d.house.cfg.Observer.DeviceWarnings(d.id, d.warnings(&a, f.Zombie, kept))
}

// warnings says what is wrong. Of zombie bytes, which are released and not back, the driver has
// kept some, and processes have the others.
func (d *deviceActor) warnings(a *ailment, zombie, kept int64) []schemas.HealthWarning {
	var out []schemas.HealthWarning
	add := func(c schemas.WarningCode, subject, text, fix string) {
		out = append(out, schemas.HealthWarning{Code: c, DeviceID: d.id, Subject: subject, Text: text, Fix: fix})
	}
	code := map[device.Health]schemas.WarningCode{device.Degraded: schemas.WarnDeviceDegraded, device.Failing: schemas.WarnDeviceFailing,
		device.Lost: schemas.WarnDeviceLost}[a.health]
	switch {
	case code != "" && len(a.reasons) == 0:
		add(code, "", "the device is "+a.health.String(), "see the node's log")
	case code == "" && d.kind == schemas.DeviceTypeRAM:
		code = schemas.WarnNoHugePages // what main memory has to say while it is healthy
	case code == "":
		code = schemas.WarnDeviceNote
	}
	for i, r := range a.reasons {
		subject := ""
		if i > 0 {
			subject = fmt.Sprint(i)
		}
		add(code, subject, r, "isobar doctor tells what the machine lacks")
	}
	if a.stale {
		add(schemas.WarnStaleSamples, "", "what others use of it cannot be read: the last figures are taken for true", "see the node's log for the driver's error")
	}
	if a.drift {
		add(schemas.WarnDrift, "", fmt.Sprintf("the driver's bytes differ from the ledger's by %d", d.sampling.drift),
			"if it stays, restart the node: the next one counts anew, and nothing is lost")
	}
	if a.zombie {
		held := zombie - kept
		switch {
		case held > 0 && len(a.pids) > 0:
			add(schemas.WarnZombie, "", fmt.Sprintf("%d bytes are released but still held by the processes %v", held, a.pids), "end these processes")
		case held > 0:
			add(schemas.WarnZombie, "", fmt.Sprintf("%d bytes are released but still held", held), "end the processes that `isobar status` names as holders")
		}
		if kept > 0 {
			add(schemas.WarnZombie, "driver", fmt.Sprintf("%d bytes are released, and the driver has not taken them back", kept),
				"it is tried again; if it stays, restart the node, whose end gives them back")
		}
	}
	if !d.info.ProvesRelease {
		add(schemas.WarnNoProof, "", "releases are confirmed by sessions and the end of processes, since the driver cannot prove them", "nothing: it is in the nature of the device")
	}
	return out
}

// warningsFor are the warnings that a tenant may see: what concerns the node as a whole is
// for those who run it. With a device only that one's are left.
func (h *House) warningsFor(tenant, device string) []schemas.HealthWarning {
	out := []schemas.HealthWarning{}
	for _, w := range h.cfg.Warnings() {
		if w.DeviceID == "" && tenant != schemas.DefaultTenant || device != "" && w.DeviceID != "" && w.DeviceID != device {
			continue
		}
		out = append(out, w)
	}
	return out
}

package metrics

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/schemas"
)

// ContentType is the page's.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Snapshot is what a page needs beside what was counted.
type Snapshot struct {
	// Survey is the actors' figures; nil if they could not be had in time.
	Survey   *actors.Survey
	Warnings []schemas.HealthWarning
	Events   EventCounts
	Spans    SpanCounts
	Process  Process
}

// EventCounts are the outbox's since the start.
type EventCounts struct{ Published, Dropped, Waiting uint64 }

// SpanCounts are the exporter's since the start; nil where no traces are made.
type SpanCounts struct{ Exported, Dropped uint64 }

// Process is what the node's process uses; sizes in bytes, 0 for what is not known.
type Process struct {
	Resident, Anonymous   int64
	OpenFiles, Goroutines int
}

// lanes are the mailboxes' in the order of the survey.
var lanes = [4]string{"system", "release", "grant", "query"}

// Append writes the page behind b.
func (n *Node) Append(b []byte, s *Snapshot) []byte {
	p := &page{b}
	p.only(buildInfo, 1, n.cfg.Version, n.cfg.GoVersion, n.cfg.Node)
	p.only(startTime, float64(n.cfg.Started.UnixMilli())/1000)
	n.writeCommands(p)
	n.writeDurations(p)
	n.writeRare(p)
	if s.Survey != nil {
		writeDevices(p, s.Survey)
		writeGrants(p, s.Survey)
		n.writePressure(p, s.Survey)
		writeMailboxes(p, s.Survey)
	}
	p.only(eventsPublished, float64(s.Events.Published))
	p.only(eventsDropped, float64(s.Events.Dropped))
	p.only(eventsWaiting, float64(s.Events.Waiting))
	p.family(warningsInForce)
	writeWarnings(p, s.Warnings)
	p.only(spansExported, float64(s.Spans.Exported))
	p.only(spansDropped, float64(s.Spans.Dropped))
	p.only(residentBytes, float64(s.Process.Resident))
	p.only(anonymousBytes, float64(s.Process.Anonymous))
	p.only(openFiles, float64(s.Process.OpenFiles))
	p.only(goroutines, float64(s.Process.Goroutines))
	complete := 0.0
	if s.Survey != nil {
		complete = 1
	}
	p.only(surveyOK, complete)
	return p.b
}

// writeCommands leaves out what never happened: most pairs of action and code.
func (n *Node) writeCommands(p *page) {
	p.family(commandsTotal)
	for a, action := range n.actions {
		for c, code := range n.codes {
			if v := n.commands[a*len(n.codes)+c].Load(); v > 0 {
				p.sample(commandsTotal, float64(v), action, code)
			}
		}
	}
	p.family(commandSeconds)
	for a, action := range n.actions {
		if h := n.answers[a]; !h.empty() {
			p.histogram(commandSeconds, h, action)
		}
	}
}

// writeDurations shows devices and kinds from the start, so that a rate over them is 0
// and not absent.
func (n *Node) writeDurations(p *page) {
	for _, f := range []struct {
		metric int
		of     func(*deviceFigures) *histogram
	}{
		{grantSeconds, func(d *deviceFigures) *histogram { return d.grant }},
		{queueSeconds, func(d *deviceFigures) *histogram { return d.queue }},
		{loadSeconds, func(d *deviceFigures) *histogram { return d.load }},
	} {
		p.family(f.metric)
		for _, id := range n.cfg.Devices {
			p.histogram(f.metric, f.of(n.devices[id]), id)
		}
	}
	p.family(eventSeconds)
	p.histogram(eventSeconds, n.events)
	p.family(loadRate)
	for _, id := range n.cfg.Devices {
		p.histogram(loadRate, n.devices[id].rate, id)
	}
	p.family(copyRate)
	for _, k := range copyKinds {
		p.histogram(copyRate, n.copies[k].rate, k)
	}
	p.family(loadedBytes)
	for _, id := range n.cfg.Devices {
		p.sample(loadedBytes, float64(n.devices[id].loaded.Load()), id)
	}
	p.family(copiedBytes)
	for _, k := range copyKinds {
		p.sample(copiedBytes, float64(n.copies[k].bytes.Load()), k)
	}
}

func (n *Node) writeRare(p *page) {
	n.rare.mu.Lock()
	evicted := map[evictionKey]evictionCount{}
	for k, c := range n.rare.evicted {
		evicted[k] = *c
	}
	n.rare.mu.Unlock()
	for _, id := range n.cfg.Devices {
		for _, r := range []string{reasonCommand, reasonPressure, reasonRoom} {
			if k := (evictionKey{id, r}); evicted[k].models == 0 {
				evicted[k] = evictionCount{}
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(evicted), func(a, b evictionKey) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.reason, b.reason))
	})
	p.family(evictionsTotal)
	for _, k := range keys {
		p.sample(evictionsTotal, float64(evicted[k].models), k.device, k.reason)
	}
	p.family(evictedBytes)
	for _, k := range keys {
		p.sample(evictedBytes, float64(evicted[k].bytes), k.device, k.reason)
	}
}

// writeDevices writes each device's account. The states add up: used is granted, reserved,
// revoking, zombie and foreign; the limit is used, pooled and free.
func writeDevices(p *page, s *actors.Survey) {
	each := func(metric int, typed bool, of func(*actors.DeviceSurvey) float64) {
		p.family(metric)
		for i := range s.Devices {
			d := &s.Devices[i]
			if labels := []string{d.Memory.DeviceID, string(d.Memory.Type)}; typed {
				p.sample(metric, of(d), labels...)
			} else {
				p.sample(metric, of(d), labels[0])
			}
		}
	}
	bytes := func(of func(*schemas.MemoryInfo) int64) func(*actors.DeviceSurvey) float64 {
		return func(d *actors.DeviceSurvey) float64 { return float64(of(&d.Memory)) }
	}
	each(deviceLimit, true, bytes(func(m *schemas.MemoryInfo) int64 { return m.TotalMemory }))
	each(devicePhysical, true, bytes(func(m *schemas.MemoryInfo) int64 { return m.PhysicalMemory }))
	p.family(deviceBytes)
	for i := range s.Devices {
		d := &s.Devices[i]
		m := &d.Memory
		for _, x := range []struct {
			state string
			bytes int64
		}{{"granted", d.GrantedBytes}, {"reserved", m.ReservedMemory}, {"revoking", m.RevokingMemory}, {"zombie", m.ZombieMemory},
			{"foreign", m.ForeignMemory}, {"pooled", m.PooledMemory}, {"free", m.FreeMemory}} {
			p.sample(deviceBytes, float64(x.bytes), m.DeviceID, string(m.Type), x.state)
		}
	}
	each(deviceAvailable, false, bytes(func(m *schemas.MemoryInfo) int64 { return m.AvailableMemory }))
	each(deviceReclaimable, false, bytes(func(m *schemas.MemoryInfo) int64 { return m.ReclaimableMemory }))
	each(deviceModels, false, bytes(func(m *schemas.MemoryInfo) int64 { return m.ModelMemory }))
	each(devicePeak, false, func(d *actors.DeviceSurvey) float64 { return float64(d.Stats.Peak) })
	each(deviceLargest, false, bytes(func(m *schemas.MemoryInfo) int64 { return m.LargestGrantableBytes }))
	each(deviceFragmentation, false, func(d *actors.DeviceSurvey) float64 { return d.Memory.FragmentationPercentage / 100 })
	each(deviceDrift, false, bytes(func(m *schemas.MemoryInfo) int64 { return m.DriftBytes }))
	each(deviceHealth, false, func(d *actors.DeviceSurvey) float64 { return d.HealthScore })
	p.family(deviceAge)
	for i := range s.Devices {
		if m := &s.Devices[i].Memory; m.ObservedAt != nil {
			p.sample(deviceAge, max(0, s.At.Sub(*m.ObservedAt).Round(time.Millisecond).Seconds()), m.DeviceID)
		}
	}
	each(grantsTotal, false, func(d *actors.DeviceSurvey) float64 { return float64(d.Stats.Grants) })
	each(releasesTotal, false, func(d *actors.DeviceSurvey) float64 { return float64(d.Stats.Releases) })
	each(refusalsTotal, false, func(d *actors.DeviceSurvey) float64 { return float64(d.Stats.Refusals) })
	each(queueLength, false, func(d *actors.DeviceSurvey) float64 { return float64(d.Waiting) })
	each(queueBytes, false, func(d *actors.DeviceSurvey) float64 { return float64(d.WaitingBytes) })
}

func writeGrants(p *page, s *actors.Survey) {
	for _, m := range []int{grantBytes, grantCount} {
		p.family(m)
		for i := range s.Devices {
			for _, g := range s.Devices[i].Shares {
				v := g.Bytes
				if m == grantCount {
					v = int64(g.Count)
				}
				p.sample(m, float64(v), s.Devices[i].Memory.DeviceID, g.Tenant, string(g.Class))
			}
		}
	}
}

func (n *Node) writePressure(p *page, s *actors.Survey) {
	names := schemas.PressureLow.Names()
	p.family(pressureLevel)
	for i := range s.Devices {
		p.sample(pressureLevel, float64(slices.Index(names, string(s.Devices[i].Level))), s.Devices[i].Memory.DeviceID)
	}
	n.rare.mu.Lock()
	levels := maps.Clone(n.rare.levels)
	n.rare.mu.Unlock()
	p.family(pressureChanges)
	for i := range s.Devices {
		id := s.Devices[i].Memory.DeviceID
		for _, l := range names {
			p.sample(pressureChanges, float64(levels[levelKey{id, schemas.PressureLevel(l)}]), id, l)
		}
	}
}

func writeMailboxes(p *page, s *actors.Survey) {
	p.family(mailboxWaiting)
	for _, m := range s.Mailboxes {
		for i, waiting := range m.Waiting {
			p.sample(mailboxWaiting, float64(waiting), m.Actor, lanes[i])
		}
	}
}

// writeWarnings counts warnings by code: what they are about stands in get_status.
func writeWarnings(p *page, ws []schemas.HealthWarning) {
	counts := map[schemas.WarningCode]int{}
	for _, w := range ws {
		counts[w.Code]++
	}
	for _, spec := range schemas.WarningSpecs() {
		if counts[spec.Code] > 0 {
			p.sample(warningsInForce, float64(counts[spec.Code]), string(spec.Code), string(spec.Severity))
		}
	}
}

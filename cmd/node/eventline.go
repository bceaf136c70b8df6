package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// missedKind is the event that watch makes up for what it did not receive.
const missedKind schemas.EventKind = "missed"

// eventJSON is an event as a line of JSON, before it a line for what was missed.
func eventJSON(e *client.Event) string {
	text := ""
	if e.Missed.To > 0 {
		text = encodeWatched(watched{e.Subject, schemas.Event{Event: missedKind, Sequence: e.Missed.To, BootID: e.BootID, Node: e.Node,
			Timestamp: e.Timestamp, Data: e.Missed}})
	}
	whole := e.Event
	whole.Data = e.Raw
	return text + encodeWatched(watched{e.Subject, whole})
}

// eventLines is an event for reading: time, kind of subject, device, what happened.
func eventLines(e *client.Event) string {
	kind, where := splitEventSubject(e.Subject)
	if where == "" {
		where = e.Node
	}
	var b strings.Builder
	line := func(at time.Time, text string) {
		fmt.Fprintf(&b, "%s  %-15s %-10s %s\n", at.Local().Format("15:04:05.000"), kind, where, text)
	}
	if e.Missed.To > 0 {
		line(e.Timestamp, fmt.Sprintf("%s missed (%d to %d)", plural(int(e.Missed.To-e.Missed.From+1), "event"), e.Missed.From, e.Missed.To))
	}
	if e.Event.Event == schemas.EventGap {
		var g schemas.Gap
		if e.Decode(&g) == nil {
			line(e.Timestamp, fmt.Sprintf("%s dropped by the node while NATS was away (%d to %d)", plural(int(g.To-g.From+1), "event"), g.From, g.To))
			return b.String()
		}
	}
	if kind == "allocation" {
		var batch schemas.AllocationBatch
		if e.Decode(&batch) == nil {
			for i := range batch.Items {
				line(batch.Items[i].Timestamp, allocationText(&batch.Items[i]))
			}
			return b.String()
		}
	}
	line(e.Timestamp, eventText(kind, e))
	return b.String()
}

// splitEventSubject finds the kind and the device in memory.events.<kind>.….<device>.
func splitEventSubject(subject string) (kind, device string) {
	tokens := strings.Split(subject, ".")
	switch {
	case len(tokens) >= 2 && tokens[1] == "heartbeat":
		return "heartbeat", ""
	case len(tokens) < 4 || tokens[1] != "events":
		return "event", ""
	case tokens[2] == "tenant_pressure" && len(tokens) == 6:
		return tokens[2], tokens[5]
	case len(tokens) == 5:
		return tokens[2], tokens[4]
	}
	return tokens[2], ""
}

func eventText(kind string, e *client.Event) string {
	var text string
	var err error
	switch kind {
	case "pressure", "tenant_pressure":
		var p schemas.Pressure
		err = e.Decode(&p)
		text = pressureText(e.Event.Event, &p)
	case "model":
		var m schemas.ModelEvent
		err = e.Decode(&m)
		text = modelText(e.Event.Event, &m)
	case "transfer":
		var o schemas.Operation
		err = e.Decode(&o)
		text = fmt.Sprintf("%s %s: %s of %s", e.Event.Event, o.OperationID, node.HumanSize(o.BytesDone), node.HumanSize(o.BytesTotal)) + because(o.Reason)
	case "optimization":
		var o schemas.OptimizationEvent
		err = e.Decode(&o)
		text = optimizationText(e.Event.Event, &o)
	case "command":
		var c schemas.CommandEvent
		err = e.Decode(&c)
		text = fmt.Sprintf("%s %s (request %s)", c.Action, e.Event.Event, c.RequestID)
		if c.ErrorCode != "" {
			text += fmt.Sprintf(": %s: %s", c.ErrorCode, c.ErrorMessage)
		}
	case "node":
		var n schemas.NodeEvent
		err = e.Decode(&n)
		text = nodeText(e.Event.Event, &n)
	case "heartbeat":
		var h schemas.Heartbeat
		err = e.Decode(&h)
		text = heartbeatText(&h)
	default:
		return string(e.Event.Event) + " " + string(e.Raw)
	}
	if err != nil {
		return string(e.Event.Event) + " " + string(e.Raw) // a newer node's: shown as it is
	}
	return text
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func allocationText(i *schemas.AllocationItem) string {
	size := i.GrantedBytes
	if size == 0 {
		size = i.SizeBytes
	}
	s := fmt.Sprintf("%s %s", i.Event, node.HumanSize(size))
	if i.Class != "" {
		s += " " + string(i.Class)
	}
	switch {
	case i.ModelName != "":
		s += " for model " + i.ModelName
	case i.Purpose != "":
		s += " for " + i.Purpose
	}
	if i.Position > 0 {
		s += fmt.Sprintf(" at position %d", i.Position)
	}
	if i.QueuedMs >= 1 {
		s += " after " + shortDuration(milliseconds(i.QueuedMs)) + " in the queue"
	}
	if i.PID != 0 {
		s += fmt.Sprintf(", pid %d", i.PID)
	}
	if i.AllocationID != "" {
		s += " " + i.AllocationID
	}
	if i.ErrorCode != "" {
		s += " " + string(i.ErrorCode)
	}
	return s + because(i.Reason)
}

func pressureText(kind schemas.EventKind, p *schemas.Pressure) string {
	change := fmt.Sprintf("%s -> %s", p.PreviousLevel, p.PressureLevel)
	if kind == schemas.EventPressureReminder {
		change = fmt.Sprintf("still %s (reminder %d)", p.PressureLevel, p.ReminderSequence)
	}
	s := fmt.Sprintf("%s by %s: %.1f %% used, %s of %s", change, p.Cause, p.UtilizationPercentage, node.HumanSize(p.UsedMemory), node.HumanSize(p.TotalMemory))
	if p.Tenant != "" {
		s = "tenant " + p.Tenant + " " + s
	}
	if p.TargetBytes > 0 {
		s += ", release " + node.HumanSize(p.TargetBytes)
	}
	if p.DeficitBytes > 0 {
		s += ", a request lacks " + node.HumanSize(p.DeficitBytes)
	}
	return s
}

func modelText(kind schemas.EventKind, m *schemas.ModelEvent) string {
	s := fmt.Sprintf("%s %s", m.Name, strings.ReplaceAll(string(kind), "_", " "))
	switch {
	case kind == schemas.EventModelLoadProgress && m.BytesTotal > 0:
		s += fmt.Sprintf(" %.0f %%, %s of %s", m.ProgressPercentage, node.HumanSize(m.BytesDone), node.HumanSize(m.BytesTotal))
	case m.FreedBytes > 0:
		s += ", " + node.HumanSize(m.FreedBytes) + " freed"
	case m.SizeBytes > 0:
		s += ", " + node.HumanSize(m.SizeBytes)
	}
	if m.DurationMs > 0 {
		s += " in " + shortDuration(milliseconds(m.DurationMs))
	}
	if m.ThroughputBytesPerSecond > 0 {
		s += fmt.Sprintf(" (%s/s)", node.HumanSize(int64(m.ThroughputBytesPerSecond)))
	}
	if m.ErrorCode != "" {
		s += fmt.Sprintf(": %s: %s", m.ErrorCode, m.ErrorMessage)
	}
	return s + because(m.Reason)
}

func optimizationText(kind schemas.EventKind, o *schemas.OptimizationEvent) string {
	s := fmt.Sprintf("%s, to release %s", kind, node.HumanSize(o.TargetBytes))
	if kind == schemas.EventCompleted {
		var models []string
		for _, e := range o.Evicted {
			models = append(models, e.Model)
		}
		s = fmt.Sprintf("completed in %s: %s of %s released", shortDuration(milliseconds(o.DurationMs)), node.HumanSize(o.FreedBytes), node.HumanSize(o.TargetBytes))
		if len(models) > 0 {
			s += " from " + strings.Join(models, ", ")
		}
		if o.ShortfallBytes > 0 {
			s += ", " + node.HumanSize(o.ShortfallBytes) + " short"
		}
	}
	return s + because(o.Reason)
}

func nodeText(kind schemas.EventKind, n *schemas.NodeEvent) string {
	s := string(kind)
	if n.Version != "" {
		s += " " + n.Version
	}
	if n.PID != 0 {
		s += fmt.Sprintf(" as pid %d", n.PID)
	}
	if len(n.Devices) > 0 {
		var ids []string
		for _, d := range n.Devices {
			ids = append(ids, d.DeviceID)
		}
		s += " with " + strings.Join(ids, ", ")
	}
	if n.Warning != nil {
		return fmt.Sprintf("%s %s %s: %s (fix: %s)", s, n.Warning.Severity, n.Warning.Code, warningText(n.Warning), n.Warning.Fix)
	}
	if n.DeviceID != "" {
		s += " " + n.DeviceID
	}
	if n.DriftBytes != 0 {
		s += " by " + node.HumanSize(n.DriftBytes)
	}
	if n.Restored != nil {
		s += " with " + restored(*n.Restored)
	}
	return s + because(n.Reason)
}

func heartbeatText(h *schemas.Heartbeat) string {
	var devices []string
	for _, d := range h.Devices {
		text := d.DeviceID + " " + string(d.PressureLevel)
		if d.Health != schemas.HealthHealthy {
			text += " (" + string(d.Health) + ")"
		}
		devices = append(devices, text)
	}
	s := "up " + shortDuration(time.Duration(h.UptimeSeconds*float64(time.Second))) + ": " + strings.Join(devices, ", ")
	if h.Draining {
		s += ", draining"
	}
	return s
}

package node

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/tracing"
)

// openTraces starts the exporter where one is configured.
func (n *Node) openTraces() error {
	if n.cfg.OTLPEndpoint == "" {
		return nil
	}
	x, err := tracing.New(tracing.Config{Endpoint: n.cfg.OTLPEndpoint, Clock: n.clock, Log: n.log, Resource: []tracing.Attribute{
		{Key: "service.name", Value: "isobar"}, {Key: "service.version", Value: n.cfg.Version}, {Key: "service.instance.id", Value: n.cfg.Node}}})
	n.traces = x
	return err
}

// trace says which trace a command belongs to: its caller's, where that one is sampled, or
// one that begins here.
func trace(traceparent string) *actors.Trace {
	t := &actors.Trace{Span: tracing.NewSpan()}
	var sampled, ok bool
	if t.ID, t.Parent, sampled, ok = tracing.Parse(traceparent); !ok {
		t.ID, t.Parent = tracing.NewTrace(), [8]byte{}
	} else if !sampled {
		return nil
	}
	return t
}

// traceAnswer makes the span of a command: from its arrival to its answer.
func (n *Node) traceAnswer(o *bus.Outcome) {
	c := o.Command
	if n.traces == nil || c.Trace == nil {
		return
	}
	now := n.clock.Wall()
	code := string(o.Code)
	if code == "" {
		code = "OK"
	}
	n.traces.Add(tracing.Span{Trace: c.Trace.ID, ID: c.Trace.Span, Parent: c.Trace.Parent, Name: "memory." + string(c.Action), Server: true,
		Start: now.Add(-o.Took), End: now, Error: string(o.Code), Attributes: []tracing.Attribute{{Key: "isobar.action", Value: string(c.Action)},
			{Key: "isobar.device", Value: deviceOf(c.Data)}, {Key: "isobar.tenant", Value: c.Tenant}, {Key: "isobar.request_id", Value: c.RequestID},
			{Key: "isobar.code", Value: code}}})
}

// traceParts makes the spans inside a command, when it is done: that may be after its
// answer, and then they outlast their parent.
func (n *Node) traceParts(c *actors.Command, data any) {
	if n.traces == nil || c.Trace == nil {
		return
	}
	now := n.clock.Wall()
	part := func(name, device string, from, took time.Duration, more ...tracing.Attribute) {
		n.traces.Add(tracing.Span{Trace: c.Trace.ID, ID: tracing.NewSpan(), Parent: c.Trace.Span, Name: name, Start: now.Add(-from), End: now.Add(took - from),
			Attributes: append(more, tracing.Attribute{Key: "isobar.device", Value: device})})
	}
	ms := func(f float64) time.Duration { return time.Duration(f * float64(time.Millisecond)) }
	switch r := data.(type) {
	case *schemas.AllocateReply:
		if r.QueuedMs > 0 {
			part("queue wait", r.DeviceID, ms(max(r.AllocationTimeMs, r.QueuedMs)), ms(r.QueuedMs))
		}
	case *schemas.LoadModelReply:
		if r.LoadTimeMs > 0 && r.SourceTier == schemas.TierDisk {
			device := ""
			if len(r.Model.Residency) > 0 {
				device = r.Model.Residency[0].DeviceID
			}
			part("load", device, ms(r.LoadTimeMs), ms(r.LoadTimeMs), tracing.Attribute{Key: "isobar.model", Value: r.Model.Name},
				tracing.Attribute{Key: "isobar.bytes", Value: fmt.Sprint(r.Model.SizeBytes)})
		}
	}
}

// checkSpans looks whether spans were lost. It is called with every heartbeat.
func (n *Node) checkSpans() {
	if n.traces == nil {
		return
	}
	_, dropped := n.traces.Stats()
	if n.lostSpans.look(dropped, n.clock.Now()) {
		n.board.Say(sourceTraces, schemas.HealthWarning{Code: schemas.WarnSpansDropped, Text: fmt.Sprintf("%d spans were dropped since the start", dropped),
			Fix: "see whether the collector at " + n.cfg.OTLPEndpoint + " is up and takes what is sent"})
		return
	}
	n.board.Say(sourceTraces)
}

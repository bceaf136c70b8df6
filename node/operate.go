package node

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/metrics"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/telemetry"
)

// answered takes every answer: into the figures, the records and, where the command is
// traced, the traces.
func (n *Node) answered(o bus.Outcome) {
	n.figures.Command(o.Command.Action, o.Code, o.Took)
	n.commands.add(o)
	n.traceAnswer(&o)
}

// newFigures makes the node's metrics, once its devices are known.
func (n *Node) newFigures(devices []string) {
	n.figures = metrics.NewNode(metrics.Config{Node: n.cfg.Node, Version: n.cfg.Version, GoVersion: runtime.Version(), Started: n.clock.Wall(), Devices: devices})
}

// serveHTTP starts metrics and probes. A node whose port is taken serves memory all the
// same, and says so.
func (n *Node) serveHTTP() {
	if n.cfg.HTTP == "" {
		return
	}
	s, err := telemetry.Serve(telemetry.Config{Listen: n.cfg.HTTP, AllowRemote: n.cfg.HTTPRemote, Page: n.page, Silent: n.house.Silent, NotReady: n.notReady, Log: n.log})
	if err != nil {
		n.board.Say(sourceHTTP, schemas.HealthWarning{Code: schemas.WarnHTTPUnavailable, Text: err.Error(),
			Fix: "end what listens on " + n.cfg.HTTP + ", or choose another address with --http, or --http off"})
		return
	}
	n.http = s
	n.info.HTTP = s.Addr()
}

// page appends the metrics to b.
func (n *Node) page(ctx context.Context, b []byte) []byte {
	e := n.bus.EventStats()
	s := &metrics.Snapshot{Warnings: n.board.List(), Process: process(), Events: metrics.EventCounts{Published: e.Published, Dropped: e.Dropped, Waiting: e.Waiting}}
	if n.traces != nil {
		s.Spans.Exported, s.Spans.Dropped = n.traces.Stats()
	}
	if survey, err := n.house.Survey(ctx); err == nil {
		s.Survey = survey
	} else {
		n.log.Warn("the metrics are without the devices' figures", "error", err)
	}
	return n.figures.Append(b, s)
}

// notReady says why work cannot be done.
func (n *Node) notReady(ctx context.Context) []string {
	var why []string
	if !n.bus.Connected() {
		why = append(why, "NATS is not connected")
	}
	if !n.keeper.holds() {
		why = append(why, "no vault holds the memory")
	}
	s, err := n.house.Survey(ctx)
	if err != nil {
		return append(why, "the devices do not give their figures: "+err.Error())
	}
	if s.Draining {
		why = append(why, "the node is stopping")
	}
	for _, d := range s.Devices {
		if !d.Sampled {
			why = append(why, d.Memory.DeviceID+" has not been sampled yet")
		}
		if d.Memory.Health == schemas.HealthLost || d.Memory.Health == schemas.HealthFailing {
			why = append(why, d.Memory.DeviceID+" is "+string(d.Memory.Health))
		}
	}
	return why
}

// process reads what this process uses; what cannot be read is 0.
func process() metrics.Process {
	p := metrics.Process{Goroutines: runtime.NumGoroutine()}
	text, err := os.ReadFile("/proc/self/status")
	if err == nil {
		p.Resident, p.Anonymous = statusBytes(string(text), "VmRSS:"), statusBytes(string(text), "RssAnon:")
	}
	if d, err := os.Open("/proc/self/fd"); err == nil {
		defer d.Close()
		if names, err := d.Readdirnames(-1); err == nil {
			p.OpenFiles = len(names) - 1 // not the one that looks
		}
	}
	return p
}

// statusBytes finds a line of /proc/PID/status, whose figures are in kB.
func statusBytes(text, name string) int64 {
	_, rest, ok := strings.Cut(text, "\n"+name)
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}

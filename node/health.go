package node

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/health"
	"github.com/isobar-project/isobar/schemas"
)

// The sources of warnings beside the devices, which speak under their ids.
const (
	sourceBus    = "nats/connections"
	sourceEvents = "nats/events"
	sourceVault  = "vault/process"
	sourceHTTP   = "http/server"
	sourceTraces = "traces/export"
	sourceAbsent = "node/absent"
	sourceGPUs   = "node/gpus"
	sourceLate   = "node/gpus/late"
)

// warned tells the log and whoever listens of a warning. It is called with the board
// locked.
func (n *Node) warned(c health.Change) {
	w := c.Warning
	kind, level, text := schemas.EventWarningRaised, slog.LevelWarn, w.Text
	switch {
	case !c.Raised:
		kind, level, text = schemas.EventWarningCleared, slog.LevelInfo, "over: "+w.Text
	case w.Severity == schemas.SeverityNotice:
		level = slog.LevelInfo
	}
	n.log.Log(n.ctx, level, text, "code", w.Code, "severity", w.Severity, "device", w.DeviceID, "subject", w.Subject, "fix", w.Fix)
	if b := n.outlet.Load(); b != nil {
		b.Publisher().Publish(schemas.Event{Event: kind, Subject: schemas.NodeSubject(n.cfg.Node), Data: &schemas.NodeEvent{DeviceID: w.DeviceID, Warning: &w}})
	}
}

// busHealth passes on what the bus has to say.
func (n *Node) busHealth(ws []bus.Warning) {
	out := make([]schemas.HealthWarning, len(ws))
	for i, w := range ws {
		out[i] = schemas.HealthWarning{Code: w.Code, Subject: w.Subject, Text: w.Text, Fix: w.Fix}
	}
	n.board.Say(sourceBus, out...)
}

// vaultHealth passes on whether a vault holds what must survive.
func (n *Node) vaultHealth(why string) {
	if why == "" {
		n.board.Say(sourceVault)
		return
	}
	n.board.Say(sourceVault, schemas.HealthWarning{Code: schemas.WarnVaultMissing, Text: why,
		Fix: "look into " + n.cfg.VaultLog() + ", and whether the kernel killed the vault for want of memory; then restart the node"})
}

// rememberDrops is how long a warning of lost events or spans stays after the last loss.
const rememberDrops = 10 * time.Minute

// drops turns a count of what was lost into a warning that ends some time after the last.
type drops struct {
	seen uint64
	at   clock.Instant
}

// look takes the present count; it reports whether something was lost lately.
func (d *drops) look(count uint64, now clock.Instant) bool {
	if count != d.seen {
		d.seen, d.at = count, now
	}
	return d.seen > 0 && now.Sub(d.at) < rememberDrops
}

// checkEvents looks whether events were lost. It is called with every heartbeat.
func (n *Node) checkEvents() {
	b := n.outlet.Load()
	if b == nil {
		return
	}
	dropped := b.EventStats().Dropped
	if n.lostEvents.look(dropped, n.clock.Now()) {
		n.board.Say(sourceEvents, schemas.HealthWarning{Code: schemas.WarnEventsDropped,
			Text: fmt.Sprintf("%d events were dropped since the start", dropped), Fix: "see whether the NATS server is up and takes what is published"})
		return
	}
	n.board.Say(sourceEvents)
}

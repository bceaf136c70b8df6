package actors

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// Survey is the figures of one moment, for operators: of every tenant.
type Survey struct {
	At      time.Time
	Devices []DeviceSurvey
	// Mailboxes are the messages that wait, by actor and lane.
	Mailboxes []Mailbox
	Draining  bool
}

// DeviceSurvey is one device's part.
type DeviceSurvey struct {
	Memory schemas.MemoryInfo
	// GrantedBytes is what live grants hold, those being released not counted.
	GrantedBytes int64
	Stats        ledger.DeviceStats
	Level        schemas.PressureLevel
	HealthScore  float64
	Waiting      int
	WaitingBytes int64
	Shares       []GrantShare
	// Sampled is false until the outside figures have been read for the first time.
	Sampled bool
}

// GrantShare is what one tenant holds in one class.
type GrantShare struct {
	Tenant string
	Class  schemas.Class
	Bytes  int64
	Count  int
}

// Mailbox is how many messages wait for an actor, by lane.
type Mailbox struct {
	Actor   string
	Waiting [4]int
}

// Survey asks every device for its figures and waits for them, or for ctx. Each device
// walks its grants once, on the lane of queries. It may be called from any goroutine but
// an actor's.
func (h *House) Survey(ctx context.Context) (*Survey, error) {
	type answer struct {
		parts []DeviceSurvey
		err   *schemas.Error
	}
	done := make(chan answer, 1)
	ask(h, h.devices, (*deviceActor).survey, func(parts []DeviceSurvey, err *schemas.Error) { done <- answer{parts, err} })
	select {
	case a := <-done:
		if a.err != nil {
			return nil, errors.New(a.err.Message)
		}
		s := &Survey{At: h.cfg.Clock.Wall(), Devices: a.parts, Draining: h.draining.Load()}
		for _, b := range h.pulse.actors {
			s.Mailboxes = append(s.Mailboxes, Mailbox{b.name, b.box.ref.Depth()})
		}
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (d *deviceActor) survey() DeviceSurvey {
	f := d.core.Figures()
	s := DeviceSurvey{Memory: d.memoryInfo(), GrantedBytes: f.Granted, Stats: d.core.Stats(), Level: d.beat.Load().PressureLevel,
		HealthScore: d.healthScore(), Waiting: f.Waiting, Sampled: !d.sampling.at.IsZero()}
	type key struct {
		tenant string
		class  ledger.Class
	}
	shares := map[key]*GrantShare{}
	d.core.Grants(func(g *ledger.Grant) {
		k := key{g.Owner.Tenant, g.Class}
		x := shares[k]
		if x == nil {
			x = &GrantShare{Tenant: k.tenant, Class: schemas.Class(k.class)}
			shares[k] = x
		}
		x.Bytes += g.Granted
		x.Count++
	})
	d.core.Waiting(func(_ int, r *ledger.Request) { s.WaitingBytes += r.Size })
	for _, x := range shares {
		s.Shares = append(s.Shares, *x)
	}
	slices.SortFunc(s.Shares, func(a, b GrantShare) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Class, b.Class))
	})
	return s
}

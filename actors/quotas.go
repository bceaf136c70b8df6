package actors

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/pressure"
	"github.com/isobar-project/isobar/schemas"
)

// quotaSlot is what a device last said of its tenants' quotas, for other goroutines.
type quotaSlot struct {
	newest atomic.Pointer[[]ledger.TenantFigures]
}

// get returns the figures of the tenants that have a quota; nobody changes them.
func (s *quotaSlot) get() []ledger.TenantFigures {
	if p := s.newest.Load(); p != nil {
		return *p
	}
	return nil
}

// quotaChange is what set_limits asks for a tenant.
func quotaChange(in *schemas.TenantLimits) ledger.QuotaChange {
	c := ledger.QuotaChange{Tenant: in.Name, Floor: in.FloorBytes, Soft: in.SoftBytes, Hard: in.HardBytes}
	if in.Weight > 0 {
		c.Weight = &in.Weight
	}
	return c
}

// knows says why a quota cannot be a tenant's: there is no such tenant. One that has a quota on
// record, because there was one, may change it.
func (d *deviceActor) knows(tenant string) *schemas.Error {
	all := d.house.cfg.Tenants
	if len(all) == 0 || slices.Contains(all, tenant) || d.onRecord(tenant) {
		return nil
	}
	return schemas.Errorf(schemas.CodeInvalidRequest, "no tenant %q is configured: there are %s", tenant, strings.Join(all, ", ")).With("field", "tenant.name").
		With("tenants", all)
}

// onRecord tells whether a tenant has a quota here.
func (d *deviceActor) onRecord(tenant string) bool {
	return d.core.Quota(tenant) != (ledger.Quota{Tenant: tenant})
}

// presetQuotas sets the configured quotas of tenants that have none on record: what
// set_limits said outlives the configuration.
func (d *deviceActor) presetQuotas() error {
	for _, q := range d.cfg.Quotas {
		if d.onRecord(q.Tenant) {
			continue
		}
		if err := d.core.SetQuota(q, d.house.now()); err != nil {
			return fmt.Errorf("the quota of tenant %s: %w", q.Tenant, err)
		}
	}
	return nil
}

// uidOf is the user of a tenant's commands that name no session.
func (h *House) uidOf(tenant string) uint32 {
	if h.cfg.UIDOf != nil {
		if uid, ok := h.cfg.UIDOf(tenant); ok {
			return uid
		}
	}
	return h.cfg.UID
}

// tenantOnSocket is the tenant that a user of this machine is on the data socket; empty
// where only the claim says it.
func (h *House) tenantOnSocket(uid uint32) string {
	if h.cfg.TenantOf == nil {
		return ""
	}
	tenant, ok := h.cfg.TenantOf(uid)
	if !ok || tenant == schemas.DefaultTenant && (uid == 0 || uid == h.cfg.UID) {
		return ""
	}
	return tenant
}

// tenantLimits is a quota in force.
func tenantLimits(q ledger.Quota) *schemas.TenantLimits {
	if q.Weight == 0 {
		q.Weight = 1
	}
	return &schemas.TenantLimits{Name: q.Tenant, FloorBytes: &q.Floor, SoftBytes: &q.Soft, HardBytes: &q.Hard, Weight: q.Weight}
}

// tellQuotas tells the monitor what tenants with a quota have, where that changed.
func (d *deviceActor) tellQuotas(cause pressure.Cause, requestID string) {
	if now := d.core.Tenants(); !slices.Equal(now, d.quotas.get()) {
		d.tellTenants(now, cause, requestID)
	}
}

func (d *deviceActor) tellTenants(now []ledger.TenantFigures, cause pressure.Cause, requestID string) {
	d.quotas.newest.Store(&now)
	m := d.house.monitor
	m.tell(seam.SystemLane, func() { m.tenants(d, now, cause, requestID) })
}

type quotaKey struct {
	device *deviceActor
	tenant string
}

// quotaState is the pressure of one tenant's quota on one device.
type quotaState struct {
	eval     *pressure.Evaluator
	last     ledger.TenantFigures
	sequence uint64
	trigger  string
}

// bounds is what a quota's share is taken of: the hard one, else the soft one; 0: none.
func bounds(q *ledger.Quota) int64 {
	if q.Hard > 0 {
		return q.Hard
	}
	return q.Soft
}

// tenants takes the figures of a device's quotas, all there are.
func (m *monitorActor) tenants(d *deviceActor, all []ledger.TenantFigures, cause pressure.Cause, requestID string) {
	there := make(map[string]bool, len(all))
	for i := range all {
		t := &all[i]
		if bounds(&t.Quota) == 0 {
			continue // a floor alone is nothing that could be used up
		}
		there[t.Tenant] = true
		k := quotaKey{d, t.Tenant}
		s, ok := m.quotas[k]
		if !ok {
			eval, err := pressure.New(m.state(d).eval.Config(), m.house.cfg.Clock.Now())
			if err != nil {
				panic(fmt.Sprintf("actors: pressure of tenant %s on %s: %v", t.Tenant, d.id, err)) // the device has the same rules
			}
			s = &quotaState{eval: eval}
			m.quotas[k] = s
		}
		s.last = *t
		if ch, changed := s.eval.Step(quotaFigures(t), cause, m.house.cfg.Clock.Now()); changed {
			m.quotaChanged(k, s, ch, requestID)
		}
	}
	for k := range m.quotas {
		if k.device == d && !there[k.tenant] {
			delete(m.quotas, k)
		}
	}
	m.arm()
}

func quotaFigures(t *ledger.TenantFigures) pressure.Figures {
	limit := bounds(&t.Quota)
	room := max(0, limit-t.Used)
	return pressure.Figures{Limit: limit, Used: t.Used, Available: room + t.Reclaimable, Reserved: t.Reserved, Zombie: t.Zombie,
		Reclaimable: t.Reclaimable, Models: t.Models, Deficit: t.Deficit, LargestGrantable: room}
}

// tickQuotas lets time pass for the quotas that wait for it.
func (m *monitorActor) tickQuotas(now clock.Instant) {
	for k, s := range m.quotas {
		if at, ok := s.eval.Next(); !ok || at > now {
			continue
		}
		if ch, changed := s.eval.Tick(now); changed {
			m.quotaChanged(k, s, ch, "")
		}
	}
}

// configureQuotas has a device's new thresholds, which have been judged, hold for its quotas.
func (m *monitorActor) configureQuotas(d *deviceActor, in *schemas.Thresholds) {
	for k, s := range m.quotas {
		if k.device != d {
			continue
		}
		if ch, changed, err := s.eval.Configure(with(s.eval.Config(), in), m.house.cfg.Clock.Now()); err == nil && changed {
			m.quotaChanged(k, s, ch, "")
		}
	}
}

// quotaChanged publishes a change of a quota's level.
func (m *monitorActor) quotaChanged(k quotaKey, s *quotaState, ch pressure.Change, requestID string) {
	kind := schemas.EventPressureReminder
	if !ch.Reminder {
		kind = schemas.EventPressureChanged
		s.sequence++
		s.trigger = requestID
	}
	p := m.renderQuota(k, s)
	p.ReminderSequence = ch.ReminderSequence
	m.house.publish(schemas.Event{Event: kind, Subject: schemas.TenantPressureSubject(k.tenant, m.house.cfg.Node, k.device.id), Data: p})
	if !ch.Reminder {
		m.house.log.Info("tenant pressure", "tenant", k.tenant, "device", k.device.id, "level", ch.To.String(), "was", ch.From.String(),
			"cause", ch.Cause.String(), "used", p.UsedMemory, "limit", p.TotalMemory)
	}
}

// renderQuota is the contract's pressure type of a quota.
func (m *monitorActor) renderQuota(k quotaKey, s *quotaState) *schemas.Pressure {
	st := s.eval.State()
	f := st.Figures
	p := &schemas.Pressure{
		DeviceID: k.device.id, Tenant: k.tenant, PressureLevel: schemas.PressureLevel(st.Level.String()), PreviousLevel: schemas.PressureLevel(st.Previous.String()),
		Cause: schemas.PressureCause(st.Cause.String()), Sequence: s.sequence, EpisodeID: m.house.cfg.BootID + "-" + k.tenant + "-" + strconv.FormatUint(st.Episode, 10),
		TotalMemory: f.Limit, UsedMemory: f.Used, AvailableMemory: f.Available, ReservedMemory: f.Reserved, ZombieMemory: f.Zombie,
		ReclaimableMemory: f.Reclaimable, DeficitBytes: f.Deficit, TargetBytes: st.Target, LargestGrantableBytes: f.LargestGrantable,
		UtilizationPercentage: 100 * st.Utilization, ModelUtilizationPercentage: 100 * st.ModelUtilization, TrendBytesPerSecond: st.TrendBytesPerSecond,
		Quality: schemas.Quality(st.Quality), RecommendedActions: recommended(st), TopHolders: []schemas.Holder{}, TriggerRequestID: s.trigger,
	}
	if st.Filling {
		p.ExhaustionSeconds = &st.ExhaustionSeconds
	}
	return p
}

// quotasOf is the pressure of a tenant's quota on a device, if it has one.
func (m *monitorActor) quotasOf(d *deviceActor, tenant string) []schemas.Pressure {
	if s, ok := m.quotas[quotaKey{d, tenant}]; ok {
		return []schemas.Pressure{*m.renderQuota(quotaKey{d, tenant}, s)}
	}
	return nil
}

// topHolders shows who holds the most: to a tenant what others hold as one.
func topHolders(hs []ledger.Holding, viewer string) []schemas.Holder {
	out := []schemas.Holder{}
	var others, machine int64
	for _, h := range hs {
		if h.Process && viewer != "" && viewer != schemas.DefaultTenant {
			machine += h.Bytes
			continue
		}
		if viewer != "" && h.Tenant != "" && h.Tenant != viewer {
			others += h.Bytes
			continue
		}
		out = append(out, schemas.Holder{Owner: h.Owner, Bytes: h.Bytes})
	}
	if machine > 0 {
		out = append(out, schemas.Holder{Owner: ledger.Others, Bytes: machine})
	}
	if others > 0 {
		out = append(out, schemas.Holder{Owner: ledger.EverybodyElse, Bytes: others})
	}
	return out
}

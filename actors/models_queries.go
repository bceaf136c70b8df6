package actors

import (
	"encoding/base64"
	"sort"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/schemas"
)

// model renders a model as a tenant may see it: of another's that is shared its own readers.
func (p *poolActor) model(m *catalog.Model, tenant string, tensors bool) schemas.Model {
	out := schemas.Model{Name: m.Name, Version: m.VersionString(), Path: m.Path, ContentID: m.ContentID, Type: m.Type, Shared: m.Shared, Pinned: m.Pinned,
		SizeBytes: m.Bytes, TensorCount: len(m.Tensors), LastUsed: m.LastUsed, Loads: m.Loads, Tenant: m.Tenant, Residency: []schemas.Residency{}}
	if out.Type == "" {
		out.Type = "other"
	}
	if out.LastUsed.IsZero() {
		out.LastUsed = p.house.cfg.Clock.Wall() // whoever waits for its first load uses it
	}
	m.Copies(func(cp *catalog.Copy) {
		if m.Tenant == tenant {
			out.Readers += cp.Readers()
		} else {
			out.Readers += cp.ReadersByTenant()[tenant]
		}
		out.LoadCostMs.Disk = max(out.LoadCostMs.Disk, millis(cp.Cost))
		out.LoadCostMs.RAM = millis(m.WarmCost)
		out.State = schemas.ModelState(cp.State)
		if cp.Grant != uuid.Nil {
			out.Residency = append(out.Residency, schemas.Residency{DeviceID: cp.Device, Tier: p.house.byID[cp.Device].tier(), SizeBytes: cp.Granted, AllocationID: cp.Grant.String()})
		}
	})
	sort.Slice(out.Residency, func(i, j int) bool { return out.Residency[i].DeviceID < out.Residency[j].DeviceID })
	if m.Usable("") != nil {
		out.State = schemas.ModelSealed
	}
	if tensors {
		out.Tensors = m.Tensors
	}
	return out
}

// list renders the tenant's models by name, then version.
func (p *poolActor) list(tenant string) []*catalog.Model {
	var ms []*catalog.Model
	p.core.Models(tenant, func(m *catalog.Model) { ms = append(ms, m) })
	sort.Slice(ms, func(i, j int) bool { return modelKey(ms[i]) < modelKey(ms[j]) })
	return ms
}

func modelKey(m *catalog.Model) string { return m.Name + "\x00" + strconv.FormatUint(uint64(m.ID), 36) }

func (p *poolActor) getModelInfo(c *call, in *schemas.GetModelInfoRequest) {
	var ms []*catalog.Model
	if in.Name != "" {
		m, err := p.core.Find(c.Tenant, in.Name)
		if err != nil {
			c.fail(err)
			return
		}
		ms = []*catalog.Model{m}
	} else {
		ms = p.list(c.Tenant)
	}
	after, bad := base64.RawURLEncoding.DecodeString(in.Cursor)
	if bad != nil {
		c.fail(schemas.Errorf(schemas.CodeInvalidRequest, "the cursor is not one of this node's").With("field", "cursor"))
		return
	}
	r := &schemas.GetModelInfoReply{Models: []schemas.Model{}}
	limit := 100
	if in.Limit != nil {
		limit = *in.Limit
	}
	for _, m := range ms {
		if in.Cursor != "" && modelKey(m) <= string(after) {
			continue
		}
		if len(r.Models) == limit {
			break
		}
		r.Models = append(r.Models, p.model(m, c.Tenant, in.IncludeTensors))
		if m != ms[len(ms)-1] && len(r.Models) == limit {
			r.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(modelKey(m)))
		}
	}
	p.memory(c, p.house.devices, func(mm schemas.ModelMemory) {
		r.ModelMemory = mm
		c.done(r, nil)
	})
}

// memory sums what models hold on devices, against their limits.
func (p *poolActor) memory(c *call, ds []*deviceActor, use func(schemas.ModelMemory)) {
	type part struct{ usage, limit, available int64 }
	count := 0
	p.core.Models(c.Tenant, func(m *catalog.Model) {
		if m.Usable("") != nil {
			count++
		}
	})
	ask(p.house, ds, func(d *deviceActor) part {
		u, l, a := d.modelMemory()
		return part{u, l, a}
	}, func(parts []part, err *schemas.Error) {
		if err != nil {
			c.fail(err)
			return
		}
		var sum part
		for _, x := range parts {
			sum.usage += x.usage
			sum.limit += x.limit
			sum.available += x.available
		}
		use(schemas.NewModelMemory(sum.usage, sum.limit, sum.available, count))
	})
}

// modelMemory is what models hold here, may hold, and could still get.
func (d *deviceActor) modelMemory() (usage, limit, available int64) {
	f := d.core.Figures()
	_, models, _ := d.core.Limits()
	if models == 0 {
		models = f.Limit
	}
	return f.Models, models, max(0, min(models-f.Models+f.Reclaimable, f.Available))
}

func (p *poolActor) modelStatus(c *call, in *schemas.ModelStatusRequest) {
	ds, err := p.house.some(in.DeviceID)
	if err != nil {
		c.fail(err)
		return
	}
	r := &schemas.ModelStatusReply{LoadedModels: map[string]schemas.Model{}, OptimizationRecommendations: []schemas.Recommendation{}}
	for _, spec := range schemas.All() {
		r.AvailableOperations = append(r.AvailableOperations, string(spec.Action))
	}
	for _, m := range p.list(c.Tenant) {
		for _, d := range ds {
			if cp := m.Copy(d.id); cp != nil && cp.State == catalog.Sealed && !m.Superseded {
				r.LoadedModels[m.Name] = p.model(m, c.Tenant, false)
			}
		}
	}
	p.memory(c, ds, func(mm schemas.ModelMemory) {
		r.ModelMemory = mm
		r.ModelCount = len(r.LoadedModels)
		p.house.monitor.worst(ds, func(l schemas.PressureLevel) {
			r.PressureLevel = l
			agreed := func(d *deviceActor) time.Time { return d.sampling.agreed }
			ask(p.house, ds, agreed, func(parts []time.Time, err *schemas.Error) {
				if err != nil {
					c.fail(err)
					return
				}
				for i, t := range parts {
					if i == 0 || t.Before(r.LastSynchronized) {
						r.LastSynchronized = t
					}
				}
				p.house.recommend(ds, c, func(recs []schemas.Recommendation, err *schemas.Error) {
					if err != nil {
						c.fail(err)
						return
					}
					for _, rec := range recs {
						if aboutModels(rec.Kind) {
							r.OptimizationRecommendations = append(r.OptimizationRecommendations, rec)
						}
					}
					c.done(r, nil)
				})
			})
		})
	})
}

// fillStatus adds what models hold to the parts of get_status, and how many a tenant may use
// of them, and then calls use.
func (p *poolActor) fillStatus(ds []*deviceActor, parts []schemas.DeviceStatus, tenant string, use func()) {
	p.tell(seam.SystemLane, func() {
		for i, d := range ds {
			count := 0
			for _, m := range p.list(tenant) {
				if cp := m.Copy(d.id); cp != nil && cp.State == catalog.Sealed {
					count++
				}
			}
			mm := &parts[i].ModelMemory
			*mm = schemas.NewModelMemory(mm.MemoryUsageBytes, mm.MemoryLimitBytes, mm.AvailableMemoryBytes, count)
		}
		use()
	})
}

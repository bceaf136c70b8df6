package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sort"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// Restored is what a take-over found in the pool's region.
type Restored struct {
	Models  int
	Lost    []string // models whose copies are gone with their memory
	Answers []ledger.AnswerRecord
	// Orphans are weights grants that no copy names: loads that were not finished.
	Orphans []uuid.UUID
}

// image is what a region says.
type image struct {
	models  []modelRecord
	copies  []copyRecord
	answers []ledger.AnswerRecord
	recs    map[store.Kind][]store.RecID
}

// Restore rebuilds a catalog from a region. granted are the sealed weights grants that
// the devices still hold, with their device. What is on record of absent devices, whose
// memory is kept for a later start, stays as it is. An image that says what no catalog writes is
// a *ledger.ImageError; other errors are of package store.
func Restore(mem []byte, policy eviction.Policy, newID func() uuid.UUID, granted map[uuid.UUID]string, absent map[string]bool, now ledger.Now) (*Catalog, Restored, error) {
	var rep Restored
	im := image{recs: map[store.Kind][]store.RecID{}}
	region, err := store.Open(mem, func(rec store.RecID, kind store.Kind, payload []byte) error {
		if err := im.add(rec, kind, payload); err != nil {
			return &ledger.ImageError{Record: rec, Reason: err.Error()}
		}
		return nil
	})
	if err != nil {
		return nil, rep, err
	}
	if err := im.check(); err != nil {
		return nil, rep, err
	}
	c := newCatalog(policy, newID)
	c.region = region
	for i, r := range im.models {
		c.addModel(r, im.recs[kindModel][i])
	}
	orphans := maps.Clone(granted)
	tx := region.Begin()
	for i, r := range im.copies {
		m := c.all[r.Model]
		if absent[r.Device] {
			m.parked = append(m.parked, im.recs[kindCopy][i])
			continue
		}
		if device, ok := granted[r.Grant]; !ok || device != r.Device {
			tx.Delete(im.recs[kindCopy][i])
			if !r.Revoking { // else its release went on without us
				rep.Lost = append(rep.Lost, m.Name)
			}
			continue
		}
		delete(orphans, r.Grant)
		c.addCopy(m, r, im.recs[kindCopy][i], now)
		rep.Models++
	}
	must(tx.Commit())
	ballast := store.RecID(0)
	if recs := im.recs[kindBallast]; len(recs) > 0 {
		ballast = recs[0]
	}
	c.ballast = ledger.NewBallast(region, kindBallast, ballast)
	rep.Answers = im.answers
	for i, a := range im.answers {
		c.answers[a.Key] = im.recs[kindAnswer][i]
	}
	for id := range orphans {
		rep.Orphans = append(rep.Orphans, id)
	}
	sort.Slice(rep.Orphans, func(i, j int) bool { return rep.Orphans[i].String() < rep.Orphans[j].String() })
	for _, m := range c.all {
		if m.Superseded && m.nowhere() {
			c.drop(m)
		}
	}
	c.forgetOld()
	return c, rep, nil
}

func (im *image) add(rec store.RecID, kind store.Kind, payload []byte) error {
	var err error
	switch kind {
	case kindModel:
		var r modelRecord
		err = json.Unmarshal(payload, &r)
		im.models = append(im.models, r)
	case kindCopy:
		var r copyRecord
		err = json.Unmarshal(payload, &r)
		im.copies = append(im.copies, r)
	case kindAnswer:
		var a ledger.AnswerRecord
		a, err = ledger.DecodeAnswer(payload)
		im.answers = append(im.answers, a)
	case kindBallast:
		if len(im.recs[kindBallast]) > 0 {
			err = errors.New("ballast is recorded twice")
		}
	default:
		err = fmt.Errorf("unknown kind %d", kind)
	}
	im.recs[kind] = append(im.recs[kind], rec)
	return err
}

// check says what in an image contradicts what a catalog writes.
func (im *image) check() error {
	wrong := func(kind store.Kind, i int, format string, args ...any) error {
		return &ledger.ImageError{Record: im.recs[kind][i], Reason: fmt.Sprintf(format, args...)}
	}
	models, names := map[ModelID]bool{}, map[string]bool{}
	for i, m := range im.models {
		k := nameKey(m.Tenant, m.Name)
		switch {
		case m.ID == 0 || m.ID > 1<<62 || models[m.ID]:
			return wrong(kindModel, i, "model id %d is impossible or there twice", m.ID)
		case !m.Superseded && names[k]:
			return wrong(kindModel, i, "two models are the newest of the name %q", m.Name)
		case m.Bytes < 0:
			return wrong(kindModel, i, "a model of %d bytes", m.Bytes)
		}
		models[m.ID] = true
		names[k] = names[k] || !m.Superseded
	}
	type place struct {
		model  ModelID
		device string
	}
	places, grants, refs := map[place]bool{}, map[uuid.UUID]bool{}, map[string]bool{}
	for i, r := range im.copies {
		at := place{r.Model, r.Device}
		switch {
		case !models[r.Model] || places[at] || grants[r.Grant]:
			return wrong(kindCopy, i, "a copy of model %d on %q by grant %s: no such model, or there twice", r.Model, r.Device, r.Grant)
		case r.Granted < 0 || r.Cost < 0:
			return wrong(kindCopy, i, "a copy of %d bytes that took %v", r.Granted, r.Cost)
		}
		places[at], grants[r.Grant] = true, true
		for _, ref := range r.Refs {
			if ref == nil || refs[ref.ID] {
				return wrong(kindCopy, i, "a reference is empty or there twice")
			}
			refs[ref.ID] = true
		}
	}
	keys := map[string]bool{}
	for i, a := range im.answers {
		if keys[a.Key] {
			return wrong(kindAnswer, i, "two answers to one request")
		}
		keys[a.Key] = true
	}
	return nil
}

func (c *Catalog) addModel(r modelRecord, rec store.RecID) {
	m := &Model{ID: r.ID, Identity: Identity{Tenant: r.Tenant, Name: r.Name, Path: r.Path, ContentID: r.ContentID, Version: r.Version},
		Type: r.Type, Shared: r.Shared, Pinned: r.Pinned, Priority: r.Priority, Bytes: r.Bytes, Tensors: r.Tensors, Segments: r.Segments,
		Loads: r.Loads, LastUsed: r.LastUsed, WarmCost: r.WarmCost, Superseded: r.Superseded, asked: r.Asked, copies: map[string]*Copy{}, rec: rec}
	c.list(m)
	c.next = max(c.next, m.ID+1)
	if !m.Superseded {
		c.models[nameKey(m.Tenant, m.Name)] = m
	}
}

func (c *Catalog) addCopy(m *Model, r copyRecord, rec store.RecID, now ledger.Now) {
	cp := &Copy{Model: m, Device: r.Device, key: keyOf(r.Device, m), State: Sealed, Grant: r.Grant, Granted: r.Granted, Cost: r.Cost, UsedAt: r.UsedAt,
		refs: map[string]*Reference{}, mappers: map[ledger.SessionID]string{}, why: r.Why, force: r.Force, Home: r.Home, rec: rec, done: m.Bytes}
	for _, ref := range r.Refs {
		cp.refs[ref.ID] = ref
		c.byRef[ref.ID] = cp
	}
	if r.Revoking {
		cp.State = Revoking
		c.leaving[cp] = true
	}
	m.copies[r.Device] = cp
	c.grants[r.Grant] = cp
	c.policy.Loaded(object(cp), now.Boot)
	c.touched(cp)
}

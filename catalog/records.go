package catalog

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
	"github.com/isobar-project/isobar/schemas"
)

// The kinds of records of the pool's region. Their numbers are the format. They are
// written at the pace of loads, so they are JSON: an image can be read by people.
const (
	kindModel  store.Kind = 1
	kindCopy   store.Kind = 2
	kindAnswer store.Kind = 3
)

type modelRecord struct {
	ID         ModelID          `json:"id"`
	Tenant     string           `json:"tenant"`
	Name       string           `json:"name"`
	Path       string           `json:"path"`
	ContentID  string           `json:"content_id"`
	Version    int              `json:"version"`
	Type       string           `json:"type"`
	Shared     bool             `json:"shared"`
	Pinned     bool             `json:"pinned"`
	Priority   int              `json:"priority"`
	Bytes      int64            `json:"bytes"`
	Segments   []int64          `json:"segments"`
	Tensors    []schemas.Tensor `json:"tensors"`
	Loads      int64            `json:"loads"`
	LastUsed   time.Time        `json:"last_used"`
	Superseded bool             `json:"superseded"`
}

type copyRecord struct {
	Model   ModelID       `json:"model"`
	Device  string        `json:"device"`
	Grant   uuid.UUID     `json:"grant"`
	Granted int64         `json:"granted"`
	Cost    time.Duration `json:"cost"`
	UsedAt  clock.Instant `json:"used_at"`
	Refs    []*Reference  `json:"refs"`
	// Revoking copies are on their way out; a successor goes on with it.
	Revoking bool   `json:"revoking"`
	Why      string `json:"why"`
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	must(err) // plain structs of plain fields
	return b
}

func (m *Model) record() []byte {
	return encode(modelRecord{ID: m.ID, Tenant: m.Tenant, Name: m.Name, Path: m.Path, ContentID: m.ContentID, Version: m.Version,
		Type: m.Type, Shared: m.Shared, Pinned: m.Pinned, Priority: m.Priority, Bytes: m.Bytes, Segments: m.Segments,
		Tensors: m.Tensors, Loads: m.Loads, LastUsed: m.LastUsed, Superseded: m.Superseded})
}

func (cp *Copy) record() []byte {
	r := copyRecord{Model: cp.Model.ID, Device: cp.Device, Grant: cp.Grant, Granted: cp.Granted, Cost: cp.Cost, UsedAt: cp.UsedAt,
		Revoking: cp.State == Revoking, Why: cp.why}
	for _, ref := range cp.refs {
		r.Refs = append(r.Refs, ref)
	}
	return encode(r)
}

func put(tx *store.Tx, rec *store.RecID, kind store.Kind, payload []byte) {
	if *rec == 0 {
		*rec = tx.Insert(kind, payload)
		return
	}
	tx.Update(*rec, payload)
}

// saveSealed records a loaded copy, its model and the answers of its waiters, in one
// transaction.
func (c *Catalog) saveSealed(cp *Copy, waiters []LoadRequest, now ledger.Now) *schemas.Error {
	model, own := cp.Model.rec, cp.rec
	for _, r := range waiters {
		c.keepReference(cp, r, now)
	}
	tx := c.region.Begin()
	put(tx, &cp.Model.rec, kindModel, cp.Model.record())
	put(tx, &cp.rec, kindCopy, cp.record())
	kept := map[string]store.RecID{}
	for _, r := range waiters {
		c.putAnswer(tx, kept, cp, r, now)
	}
	if err := tx.Commit(); err != nil {
		cp.Model.rec, cp.rec = model, own
		for _, r := range waiters {
			c.dropKept(cp, r)
		}
		return full(err)
	}
	for k, rec := range kept {
		c.answers[k] = rec
	}
	return nil
}

// saveUse records a reference or an answer that a resident copy gave.
func (c *Catalog) saveUse(cp *Copy, r LoadRequest, now ledger.Now) *schemas.Error {
	c.keepReference(cp, r, now)
	tx := c.region.Begin()
	put(tx, &cp.rec, kindCopy, cp.record())
	kept := map[string]store.RecID{}
	c.putAnswer(tx, kept, cp, r, now)
	if err := tx.Commit(); err != nil {
		c.dropKept(cp, r)
		return full(err)
	}
	for k, rec := range kept {
		c.answers[k] = rec
	}
	return nil
}

func (c *Catalog) keepReference(cp *Copy, r LoadRequest, now ledger.Now) {
	if r.Reference == nil {
		return
	}
	if r.Reference.Lease > 0 {
		r.Reference.Ends = now.Boot.Add(r.Reference.Lease)
	}
	cp.refs[r.Reference.ID] = r.Reference
	c.byRef[r.Reference.ID] = cp
}

func (c *Catalog) dropKept(cp *Copy, r LoadRequest) {
	if r.Reference != nil {
		delete(cp.refs, r.Reference.ID)
		delete(c.byRef, r.Reference.ID)
	}
}

func (c *Catalog) putAnswer(tx *store.Tx, kept map[string]store.RecID, cp *Copy, r LoadRequest, now ledger.Now) {
	if r.Key != "" && r.Answer != nil {
		kept[r.Key] = tx.Insert(kindAnswer, ledger.EncodeAnswer(r.Answer(cp), now.Boot))
	}
}

func (c *Catalog) saveModel(m *Model) {
	if m.rec == 0 {
		return // it is recorded with its first copy
	}
	tx := c.region.Begin()
	tx.Update(m.rec, m.record())
	must(tx.Commit())
}

func (c *Catalog) saveCopy(cp *Copy) {
	if cp.rec == 0 {
		return
	}
	tx := c.region.Begin()
	tx.Update(cp.rec, cp.record())
	must(tx.Commit())
}

// erase removes a copy's record and its references.
func (c *Catalog) erase(cp *Copy) {
	for id := range cp.refs {
		delete(c.byRef, id)
	}
	if cp.rec != 0 {
		tx := c.region.Begin()
		tx.Delete(cp.rec)
		must(tx.Commit())
		cp.rec = 0
	}
}

// KeepAnswer records the outcome of a command that the pool carried out.
func (c *Catalog) KeepAnswer(key string, a ledger.AnswerRecord, now ledger.Now) *schemas.Error {
	tx := c.region.Begin()
	rec := tx.Insert(kindAnswer, ledger.EncodeAnswer(a, now.Boot))
	if err := tx.Commit(); err != nil {
		return full(err)
	}
	c.answers[key] = rec
	return nil
}

// ForgetAnswers deletes answers whose time has passed.
func (c *Catalog) ForgetAnswers(keys []string) {
	tx := c.region.Begin()
	for _, k := range keys {
		if rec, ok := c.answers[k]; ok {
			tx.Delete(rec)
			delete(c.answers, k)
		}
	}
	must(tx.Commit())
}

func full(err error) *schemas.Error {
	return schemas.Errorf(schemas.CodeBusy, "the ledger cannot take more records: %v", err).With("retry_after_ms", 1000)
}

// Restored is what a take-over found in the pool's region.
type Restored struct {
	Models  int
	Lost    []string // models whose copies are gone with their memory
	Answers []ledger.AnswerRecord
	// Orphans are weights grants that no copy names: loads that were not finished.
	Orphans []uuid.UUID
}

// Restore rebuilds a catalog from a region. granted are the sealed weights grants that
// the devices still hold, with their device.
func Restore(mem []byte, policy eviction.Policy, newID func() uuid.UUID, granted map[uuid.UUID]string, now ledger.Now) (*Catalog, Restored, error) {
	c := New(nil, policy, newID)
	var copies []copyRecord
	var recs []store.RecID
	var rep Restored
	region, err := store.Open(mem, func(rec store.RecID, kind store.Kind, payload []byte) error {
		switch kind {
		case kindModel:
			var r modelRecord
			if err := json.Unmarshal(payload, &r); err != nil {
				return fmt.Errorf("record %d: %w", rec, err)
			}
			c.addModel(r, rec)
		case kindCopy:
			var r copyRecord
			if err := json.Unmarshal(payload, &r); err != nil {
				return fmt.Errorf("record %d: %w", rec, err)
			}
			copies, recs = append(copies, r), append(recs, rec)
		case kindAnswer:
			a, err := ledger.DecodeAnswer(payload)
			if err != nil {
				return fmt.Errorf("record %d: %w", rec, err)
			}
			rep.Answers = append(rep.Answers, a)
			c.answers[a.Key] = rec
		default:
			return fmt.Errorf("record %d: unknown kind %d", rec, kind)
		}
		return nil
	})
	if err != nil {
		return nil, rep, err
	}
	c.region = region
	tx := region.Begin()
	for i, r := range copies {
		m, ok := c.all[r.Model]
		if !ok || granted[r.Grant] != r.Device {
			tx.Delete(recs[i])
			if ok {
				rep.Lost = append(rep.Lost, m.Name)
			}
			continue
		}
		delete(granted, r.Grant)
		c.addCopy(m, r, recs[i], now)
		rep.Models++
	}
	must(tx.Commit())
	for id := range granted {
		rep.Orphans = append(rep.Orphans, id)
	}
	for _, m := range c.all {
		if m.Superseded && len(m.copies) == 0 {
			c.drop(m)
		}
	}
	return c, rep, nil
}

func (c *Catalog) addModel(r modelRecord, rec store.RecID) {
	m := &Model{ID: r.ID, Identity: Identity{Tenant: r.Tenant, Name: r.Name, Path: r.Path, ContentID: r.ContentID, Version: r.Version},
		Type: r.Type, Shared: r.Shared, Pinned: r.Pinned, Priority: r.Priority, Bytes: r.Bytes, Tensors: r.Tensors, Segments: r.Segments,
		Loads: r.Loads, LastUsed: r.LastUsed, Superseded: r.Superseded, copies: map[string]*Copy{}, rec: rec}
	c.all[m.ID] = m
	c.next = max(c.next, m.ID+1)
	if !m.Superseded {
		c.models[nameKey(m.Tenant, m.Name)] = m
	}
}

func (c *Catalog) addCopy(m *Model, r copyRecord, rec store.RecID, now ledger.Now) {
	cp := &Copy{Model: m, Device: r.Device, State: Sealed, Grant: r.Grant, Granted: r.Granted, Cost: r.Cost, UsedAt: r.UsedAt,
		refs: map[string]*Reference{}, mappers: map[ledger.SessionID]int32{}, why: r.Why, rec: rec, done: m.Bytes}
	for _, ref := range r.Refs {
		cp.refs[ref.ID] = ref
		c.byRef[ref.ID] = cp
	}
	if r.Revoking {
		cp.State = Revoking
	}
	m.copies[r.Device] = cp
	c.grants[r.Grant] = cp
	c.policy.Loaded(object(cp), now.Boot)
}

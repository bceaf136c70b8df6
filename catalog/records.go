package catalog

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/clock"
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

	kindBallast store.Kind = 4
)

type modelRecord struct {
	ID         ModelID          `json:"id"`
	Tenant     string           `json:"tenant"`
	Name       string           `json:"name"`
	Path       string           `json:"path"`
	Asked      string           `json:"asked,omitempty"`
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
	WarmCost   time.Duration    `json:"warm_cost,omitempty"`
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
	Force    bool   `json:"force,omitempty"`
	Home     string `json:"home,omitempty"`
	Why      string `json:"why"`
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	must(err) // plain structs of plain fields
	return b
}

func (m *Model) record() []byte {
	return encode(modelRecord{ID: m.ID, Tenant: m.Tenant, Name: m.Name, Path: m.Path, Asked: m.asked, ContentID: m.ContentID, Version: m.Version,
		Type: m.Type, Shared: m.Shared, Pinned: m.Pinned, Priority: m.Priority, Bytes: m.Bytes, Segments: m.Segments,
		Tensors: m.Tensors, Loads: m.Loads, LastUsed: m.LastUsed, WarmCost: m.WarmCost, Superseded: m.Superseded})
}

func (cp *Copy) record() []byte {
	r := copyRecord{Model: cp.Model.ID, Device: cp.Device, Grant: cp.Grant, Granted: cp.Granted, Cost: cp.Cost, UsedAt: cp.UsedAt,
		Revoking: cp.State == Revoking, Force: cp.force, Home: cp.Home, Why: cp.why}
	for _, id := range sorted(cp.refs) {
		r.Refs = append(r.Refs, cp.refs[id])
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
	if !c.ballast.Hold() {
		return c.ballast.Refusal()
	}
	model, own := cp.Model.rec, cp.rec
	for _, r := range waiters {
		c.keepReference(cp, r, now)
	}
	tx := c.region.Begin()
	put(tx, &cp.Model.rec, kindModel, cp.Model.record())
	put(tx, &cp.rec, kindCopy, cp.record())
	c.supersede(tx, cp.Model)
	kept := map[string]store.RecID{}
	for _, r := range waiters {
		c.putAnswer(tx, kept, cp, r, now)
	}
	if err := tx.Commit(); err != nil {
		cp.Model.rec, cp.rec = model, own
		cp.Model.reinstate()
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
	if !c.ballast.Hold() {
		return c.ballast.Refusal()
	}
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
	r.Reference.Tenant = r.Tenant
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
	must(c.ballast.Update(m.rec, m.record()))
}

func (c *Catalog) saveCopy(cp *Copy) {
	if cp.rec == 0 {
		return
	}
	must(c.ballast.Update(cp.rec, cp.record()))
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
	c.begin()
	if !c.ballast.Hold() {
		return c.ballast.Refusal()
	}
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
	c.begin()
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

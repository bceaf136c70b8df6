package ledger

import (
	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
)

// HoldMode is what the node itself does with the bytes of a grant.
type HoldMode uint8

// The modes.
const (
	HoldRead  HoldMode = iota + 1 // its bytes are read
	HoldWrite                     // its bytes are written
	HoldMove                      // its bytes are read, and then it ends: nobody may change them meanwhile
)

// holds are the uses that the node makes of a grant's memory at this moment. Like the
// workers that make them they end with the process, and are on no record.
type holds struct {
	reads, writes int
	leaving       bool     // it is being moved to another device
	vacating      *vacancy // its block is being moved to another place
}

// held reports whether workers may be at a grant's memory.
func (g *Grant) held() bool {
	return g.holds.reads > 0 || g.holds.writes > 0 || g.holds.leaving || g.holds.vacating != nil
}

// Holdable says whether Hold would succeed, and changes nothing.
func (d *Device) Holdable(id uuid.UUID, tenant string, mode HoldMode) (*Grant, *schemas.Error) {
	g, err := d.FindGrant(id, tenant)
	if err != nil {
		return nil, err
	}
	refuse := func(code schemas.Code, format string, args ...any) (*Grant, *schemas.Error) {
		return nil, schemas.Errorf(code, format, args...)
	}
	weights := g.Class == ClassWeights
	switch {
	case g.release != nil:
		return refuse(schemas.CodeStaleHandle, "allocation %s is being released", id)
	case g.Filling:
		return refuse(schemas.CodeStaleHandle, "allocation %s is still being filled by a transfer", id)
	case weights && mode == HoldRead && !g.Sealed:
		return refuse(schemas.CodeStaleHandle, "the model of allocation %s is not loaded yet", id)
	case g.Class == ClassReservation:
		_, err := refuse(schemas.CodeInvalidRequest, "allocation %s is a reservation: it has no memory", id)
		return nil, err.With("field", "allocation_id")
	case weights && mode != HoldRead:
		_, err := refuse(schemas.CodeInvalidRequest, "allocation %s holds model %q: sealed weights never change, and are loaded where they are wanted by load_model", id, g.Model)
		return nil, err.With("field", "allocation_id")
	case g.holds.leaving && mode != HoldRead:
		return refuse(schemas.CodeAllocationInUse, "allocation %s is being moved to another device", id)
	case mode == HoldMove && len(g.Mappers) > 0:
		_, err := refuse(schemas.CodeAllocationInUse, "%d sessions map allocation %s: let them unmap it first", len(g.Mappers), id)
		return nil, err.With("mapped_by", mapperPIDs(g))
	case mode == HoldMove && g.holds.writes > 0:
		return refuse(schemas.CodeAllocationInUse, "allocation %s is being written to", id)
	}
	return g, nil
}

// Hold keeps a grant's memory where it is and out of other hands until Unhold: a release
// that begins meanwhile waits for that, and is told of as an Interrupt. While it is held
// to be moved, nobody can map it.
func (d *Device) Hold(id uuid.UUID, tenant string, mode HoldMode) (*Grant, *schemas.Error) {
	d.begin()
	g, err := d.Holdable(id, tenant, mode)
	if err != nil {
		return nil, err
	}
	d.stay(g)
	switch mode {
	case HoldRead:
		g.holds.reads++
	case HoldWrite:
		g.holds.writes++
	case HoldMove:
		g.holds.leaving = true
	}
	return g, nil
}

// Unhold ends a Hold. The shell calls it when no worker is at the memory any more.
func (d *Device) Unhold(id uuid.UUID, mode HoldMode, now Now) {
	d.begin()
	g, ok := d.grants[id]
	if !ok {
		panic("ledger: a grant that was held is gone")
	}
	switch mode {
	case HoldRead:
		g.holds.reads--
	case HoldWrite:
		g.holds.writes--
	case HoldMove:
		g.holds.leaving = false
	}
	g.LastUsed = now.Wall
	d.loosened(g, now)
}

// loosened goes on with a release that waited for a hold.
func (d *Device) loosened(g *Grant, now Now) {
	if g.release != nil && !g.held() {
		d.tryFree(g, now)
		d.pump(now)
	}
}

// interrupt tells the shell that whoever is at a grant's memory should stop.
func (d *Device) interrupt(g *Grant) {
	if h := &g.holds; h.reads > 0 || h.writes > 0 || h.leaving {
		d.out.Interrupts = append(d.out.Interrupts, g.ID)
	}
	d.stay(g)
}

// Remember records the outcome of a command that changed no grant. A ledger that is full
// remembers nothing: the command can be given again.
func (d *Device) Remember(a AnswerRecord, now Now) *schemas.Error {
	d.begin()
	if !d.ballast.Hold() {
		return d.ballast.Refusal()
	}
	tx := d.region.Begin()
	rec := tx.Insert(kindAnswer, EncodeAnswer(a, now.Boot))
	if err := tx.Commit(); err != nil {
		return ledgerFull(err)
	}
	d.answers[a.Key] = &answerAt{at: now.Boot, rec: rec}
	return nil
}

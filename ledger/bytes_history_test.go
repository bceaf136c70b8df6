package ledger_test

import (
	"fmt"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// hold is what the node is at.
type hold struct {
	grant uuid.UUID
	mode  ledger.HoldMode
}

// hold takes a grant to work on, as clear, copy and transfer do.
func (h *history) hold() {
	g := h.pickGrant()
	if g == nil {
		return
	}
	mode := rapid.SampledFrom([]ledger.HoldMode{ledger.HoldRead, ledger.HoldWrite, ledger.HoldMove}).Draw(h.t, "mode")
	_, foreseen := h.Core.Holdable(g.ID, g.Owner.Tenant, mode)
	var err *schemas.Error
	h.must(h.Call(func() { _, err = h.Core.Hold(g.ID, g.Owner.Tenant, mode) }))
	if fmt.Sprint(err) != fmt.Sprint(foreseen) {
		h.t.Fatalf("the dry run said %v, it became %v", foreseen, err)
	}
	if err == nil {
		h.holds = append(h.holds, hold{g.ID, mode})
	}
}

// letGo ends one use of a grant; until then the grant is there, whatever was done to it.
func (h *history) letGo() {
	n := len(h.holds) + len(h.fills)
	if n == 0 {
		return
	}
	i := rapid.IntRange(0, n-1).Draw(h.t, "held")
	id := uuid.UUID{}
	if i < len(h.holds) {
		id = h.holds[i].grant
	} else {
		id = h.fills[i-len(h.holds)]
	}
	if _, ok := h.Core.Grant(id); !ok {
		h.t.Fatalf("grant %s is gone while the node is at it", id)
	}
	if i < len(h.holds) {
		x := h.holds[i]
		h.holds = append(h.holds[:i:i], h.holds[i+1:]...)
		h.must(h.Call(func() { h.Core.Unhold(x.grant, x.mode, h.Now) }))
		return
	}
	i -= len(h.holds)
	h.fills = append(h.fills[:i:i], h.fills[i+1:]...)
	if rapid.IntRange(0, 3).Draw(h.t, "fill") == 0 {
		h.must(h.Call(func() { h.Core.FillFailed(id, h.Now) }))
		return
	}
	var origin uuid.UUID
	if rapid.Bool().Draw(h.t, "moved") {
		origin = uuid.UUID{15: 1}
	}
	h.n++
	a := &ledger.AnswerRecord{Key: ledger.AnswerKey("red", fmt.Sprint("f", h.n)), Action: "transfer", Body: []byte("{}")}
	var err *schemas.Error
	h.must(h.Call(func() {
		if err = h.Core.Filled(id, origin, a, h.Now); err == nil {
			h.Overwritten(id)
		}
	}))
	switch {
	case err != nil:
		h.must(h.Call(func() { h.Core.FillFailed(id, h.Now) }))
	case origin != (uuid.UUID{}):
		h.must(h.Call(func() { h.Core.Settled(id) }))
	}
}

// defragment asks for it; what it does is drawn with everything else that workers do.
func (h *history) defragment() {
	if h.Core.Defragmenting() && rapid.Bool().Draw(h.t, "stop") {
		h.must(h.Call(h.Core.StopDefragment))
		return
	}
	r := ledger.DefragmentRequest{Ref: "defragment", MaxBytes: rapid.SampledFrom([]int64{0, 20000, limit}).Draw(h.t, "budget")}
	h.must(h.Call(func() { h.Core.Defragment(r, h.Now) }))
}

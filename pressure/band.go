package pressure

import "math"

// Band is a range of counted bytes inside which nothing can happen to the level, now or
// by the passing of time: whoever sees figures inside it need not have them evaluated.
// The zero Band holds nothing.
type Band struct {
	From, To int64 // counted bytes, From ≤ bytes ≤ To
	Limit    int64
	Basis    Basis
}

// Holds reports whether figures are inside the band. It may be used from any goroutine.
func (b Band) Holds(f *Figures) bool {
	counted := f.Used
	if b.Basis == BasisUnreclaimable {
		counted = max(0, counted-f.Reclaimable)
	}
	return b.Limit > 0 && f.Limit == b.Limit && f.Deficit == 0 && !f.UnloadInFlight && !f.Stale && counted >= b.From && counted <= b.To
}

// Band returns the band around the present figures. It is empty at high and above, where
// whatever becomes reclaimable matters, and close to a threshold, where the exact comparison is
// left to the Evaluator. While others grow it ends where their growth would be foreseen to
// reach a threshold, so that own bytes alone, between two samples, say nothing new.
func (e *Evaluator) Band() Band {
	f := &e.figures
	if e.level >= High || f.Stall > Low || f.Deficit > 0 || f.UnloadInFlight || f.Stale || f.Limit <= 0 {
		return Band{}
	}
	ahead := int64(math.Ceil(min(max(0, e.growth)*seconds(e.cfg.Horizon), float64(f.Limit))))
	t := &e.cfg.Thresholds
	b := Band{Limit: f.Limit, Basis: e.cfg.Basis, To: e.below(t.Moderate.Enter) - ahead}
	if e.level == Moderate {
		if e.under {
			b.To = min(b.To, e.below(t.Moderate.Leave))
		} else {
			b.From, b.To = e.below(t.Moderate.Leave)+2, e.below(t.High.Enter)-ahead
		}
	}
	if counted := e.counted(); counted < b.From || counted > b.To {
		return Band{}
	}
	return b
}

// below is the most bytes that are under a share of the limit whatever way it is rounded.
func (e *Evaluator) below(share float64) int64 {
	return int64(math.Floor(share*float64(e.figures.Limit))) - 1
}

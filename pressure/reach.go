package pressure

import "math"

// ToReach is how many bytes must be released so that the level, once its dwell has
// passed, is no higher than to: zero where it is not. It looks at the figures of the
// latest step.
func (e *Evaluator) ToReach(to Level) int64 {
	if e.level <= to || to >= Critical {
		return 0
	}
	above := *e
	above.level = to + 1
	stay := int64(math.Ceil(above.threshold().Leave*float64(max(0, e.figures.Limit)))) - 1
	need := e.counted() - max(0, stay)
	if to < High {
		need = max(need, e.figures.Deficit) // a demand without room keeps it at high
	}
	return max(need, 0)
}

package pressure

import (
	"fmt"
	"time"
)

// Threshold is where a level begins and ends, as shares of the limit. A level
// is entered at Enter and can be left under Leave.
type Threshold struct{ Enter, Leave float64 }

// Thresholds are those of the three raised levels.
type Thresholds struct{ Moderate, High, Critical Threshold }

// of is the threshold of a raised level.
func (t *Thresholds) of(l Level) *Threshold {
	switch l {
	case Critical:
		return &t.Critical
	case High:
		return &t.High
	}
	return &t.Moderate
}

// DefaultThresholds are the design's: 70/65, 85/80 and 95/91 percent.
func DefaultThresholds() Thresholds {
	return Thresholds{
		Moderate: Threshold{.70, .65},
		High:     Threshold{.85, .80},
		Critical: Threshold{.95, .91},
	}
}

// Validate reports the first rule that does not hold: each 0 < Leave < Enter ≤ 1,
// and both ascend from level to level.
func (t Thresholds) Validate() error {
	below := Threshold{}
	for i, h := range [...]Threshold{t.Moderate, t.High, t.Critical} {
		name := Level(i + 1)
		switch {
		case !(h.Leave > 0 && h.Leave < h.Enter && h.Enter <= 1): // in this form NaN fails too
			return fmt.Errorf("thresholds of %s: enter %s and leave %s, want 0 < leave < enter ≤ 100 %%", name, percent(h.Enter), percent(h.Leave))
		case h.Enter <= below.Enter || h.Leave <= below.Leave:
			return fmt.Errorf("thresholds of %s: enter %s and leave %s must lie above those of %s (%s and %s)",
				name, percent(h.Enter), percent(h.Leave), name-1, percent(below.Enter), percent(below.Leave))
		}
		below = h
	}
	return nil
}

// percent is a share as people set it.
func percent(share float64) string { return fmt.Sprintf("%.4g %%", share*100) }

// Config is how an Evaluator judges. The zero value of a field means its default.
type Config struct {
	// Thresholds default to DefaultThresholds.
	Thresholds Thresholds
	// Dwell is how long the share must stay under the leave threshold before the
	// level falls; 3 s. DwellCritical is the same from critical; 10 s. Long enough
	// that noise does not flap, short enough that recovery shows.
	Dwell, DwellCritical time.Duration
	// UnloadHold is the longest that a fall that is due waits for unloads in
	// flight; 10 s. They keep bytes that may yet turn out to be pinned.
	UnloadHold time.Duration
	// Basis is which bytes count; BasisUsed.
	Basis Basis
	// Reminder is the time between reminders while critical with a deficit; 1 s.
	Reminder time.Duration
	// Horizon is how far ahead the growth of others is looked at: what will reach the Enter
	// of moderate or high within it raises to that level now; 1 s, about what a plan takes to
	// make room. Critical is said by samples alone.
	Horizon time.Duration
	// NewForecaster makes what foresees the growth of others; a Growth.
	NewForecaster func() Forecaster
}

// WithDefaults returns c with its zero fields set.
func (c Config) WithDefaults() Config {
	if c.Thresholds == (Thresholds{}) {
		c.Thresholds = DefaultThresholds()
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Dwell, 3 * time.Second}, {&c.DwellCritical, 10 * time.Second},
		{&c.UnloadHold, 10 * time.Second}, {&c.Reminder, time.Second},
		{&c.Horizon, time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.NewForecaster == nil {
		c.NewForecaster = func() Forecaster { return &Growth{} }
	}
	return c
}

// Validate reports the first unsound field of a Config with its defaults set.
func (c Config) Validate() error {
	if err := c.Thresholds.Validate(); err != nil {
		return err
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"dwell", c.Dwell}, {"dwell from critical", c.DwellCritical}, {"unload hold", c.UnloadHold}, {"reminder", c.Reminder},
		{"horizon", c.Horizon}} {
		if d.value <= 0 {
			return fmt.Errorf("%s is %v, want more than 0", d.name, d.value)
		}
	}
	if c.Basis > BasisUnreclaimable {
		return fmt.Errorf("basis %d is unknown", c.Basis)
	}
	return nil
}

package pressure

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/isobar-project/isobar/clock"
)

// TestScenarios runs the scripts in testdata/scenarios. Commands:
//
//	new [limit=] [basis=] [dwell=] [critical-dwell=] [hold=] [reminder=]
//	step [used=] [deficit=] [reclaimable=] [models=] [limit=] [unloading=] [stale=] [cause=]   what is not named stays
//	ramp from= by= n= every=   so many samples of others' use, each by so much more; used is foreign
//	wait D              lets time pass, ticking exactly when Next says
//	sleep D             lets time pass without ticking
//	configure ...       like new, for a running evaluator; moderate=90/80 and so on set thresholds
//	state
//
// The output is one line an event, with the time since new.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		s := &scenario{t: t}
		datadriven.RunTest(t, path, s.run)
	})
}

type scenario struct {
	t     *testing.T
	cfg   Config
	e     *Evaluator
	f     Figures
	now   clock.Instant
	start clock.Instant
}

func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	var out strings.Builder
	switch d.Cmd {
	case "new":
		s.cfg, s.f, s.now = Config{}, Figures{Limit: 1000}, clock.Instant(time.Hour)
		s.start = s.now
		s.settings(d)
		e, err := New(s.cfg, s.now)
		if err != nil {
			return fmt.Sprintln("error:", err)
		}
		s.e = e
		return ""
	case "step":
		cause := CauseGrant
		for _, arg := range d.CmdArgs {
			v := arg.Vals[0]
			switch arg.Key {
			case "used":
				s.f.Used = s.int(v)
			case "deficit":
				s.f.Deficit = s.int(v)
			case "reclaimable":
				s.f.Reclaimable = s.int(v)
			case "models":
				s.f.Models = s.int(v)
			case "limit":
				s.f.Limit = s.int(v)
			case "unloading":
				s.f.UnloadInFlight = v == "true"
			case "stale":
				s.f.Stale = v == "true"
			case "cause":
				cause = s.cause(v)
			default:
				t.Fatalf("%s: unknown argument %s", d.Pos, arg.Key)
			}
		}
		c, ok := s.e.Step(s.f, cause, s.now)
		s.print(&out, c, ok)
	case "ramp":
		var from, by, n int64
		var every time.Duration
		for _, arg := range d.CmdArgs {
			switch v := arg.Vals[0]; arg.Key {
			case "from":
				from = s.int(v)
			case "by":
				by = s.int(v)
			case "n":
				n = s.int(v)
			default:
				every = s.duration(v)
			}
		}
		for i := range n {
			s.now = s.now.Add(every)
			s.f.Used = from + by*i
			s.f.Foreign, s.f.Sampled = s.f.Used, s.now
			c, ok := s.e.Step(s.f, CauseForeign, s.now)
			s.print(&out, c, ok)
		}
	case "wait":
		span, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		end := s.now.Add(span)
		for {
			at, ok := s.e.Next()
			if !ok || at > end {
				break
			}
			if at < s.now {
				t.Fatalf("%s: Next is %v in the past", d.Pos, s.now.Sub(at))
			}
			s.now = at
			c, changed := s.e.Tick(s.now)
			if !changed {
				t.Fatalf("%s: nothing was due when Next said so", d.Pos)
			}
			s.print(&out, c, changed)
		}
		s.now = end
	case "sleep":
		s.now = s.now.Add(s.duration(d.CmdArgs[0].Key))
	case "configure":
		s.settings(d)
		c, ok, err := s.e.Configure(s.cfg, s.now)
		if err != nil {
			return fmt.Sprintln("error:", err)
		}
		s.print(&out, c, ok)
	case "state":
		st := s.e.State()
		fmt.Fprintf(&out, "level=%s previous=%s cause=%s since=%v episode=%d target=%d utilization=%.1f%% models=%.1f%% quality=%s",
			st.Level, st.Previous, st.Cause, st.Since.Sub(s.start), st.Episode, st.Target, 100*st.Utilization, 100*st.ModelUtilization, st.Quality)
		fmt.Fprintf(&out, " trend=%.0f/s", st.TrendBytesPerSecond)
		if st.Filling {
			fmt.Fprintf(&out, " full in %.1fs", st.ExhaustionSeconds)
		}
		out.WriteString("\n")
	default:
		t.Fatalf("%s: unknown command", d.Pos)
	}
	if out.Len() == 0 {
		return "-\n"
	}
	return out.String()
}

func (s *scenario) settings(d *datadriven.TestData) {
	for _, arg := range d.CmdArgs {
		v := arg.Vals[0]
		switch arg.Key {
		case "limit":
			s.f.Limit = s.int(v)
		case "basis":
			if s.cfg.Basis = BasisUsed; v == BasisUnreclaimable.String() {
				s.cfg.Basis = BasisUnreclaimable
			}
		case "dwell":
			s.cfg.Dwell = s.duration(v)
		case "critical-dwell":
			s.cfg.DwellCritical = s.duration(v)
		case "hold":
			s.cfg.UnloadHold = s.duration(v)
		case "reminder":
			s.cfg.Reminder = s.duration(v)
		case "moderate", "high", "critical":
			if s.cfg.Thresholds == (Thresholds{}) {
				s.cfg.Thresholds = DefaultThresholds()
			}
			enter, leave, _ := strings.Cut(v, "/")
			h := Threshold{float64(s.int(enter)) / 100, float64(s.int(leave)) / 100}
			switch arg.Key {
			case "moderate":
				s.cfg.Thresholds.Moderate = h
			case "high":
				s.cfg.Thresholds.High = h
			default:
				s.cfg.Thresholds.Critical = h
			}
		default:
			s.t.Fatalf("%s: unknown setting %s", d.Pos, arg.Key)
		}
	}
}

func (s *scenario) print(out *strings.Builder, c Change, ok bool) {
	switch {
	case !ok:
	case c.Reminder:
		fmt.Fprintf(out, "%v: reminder %d of %s (%s) episode=%d target=%d\n", c.At.Sub(s.start), c.ReminderSequence, c.To, c.Cause, c.Episode, c.Target)
	default:
		fmt.Fprintf(out, "%v: %s → %s (%s) episode=%d target=%d\n", c.At.Sub(s.start), c.From, c.To, c.Cause, c.Episode, c.Target)
	}
}

func (s *scenario) int(v string) int64 {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *scenario) duration(v string) time.Duration {
	n, err := time.ParseDuration(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *scenario) cause(v string) Cause {
	for c := CauseGrant; c <= CauseSourceLost; c++ {
		if c.String() == v {
			return c
		}
	}
	s.t.Fatalf("unknown cause %s", v)
	return 0
}

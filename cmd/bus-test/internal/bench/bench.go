package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
)

// Options say what to measure, and where.
type Options struct {
	// NATSURL is the server of a node that runs; "" measures nodes of bench's own.
	NATSURL string
	// Device is the device of that node to allocate on; "" is its first of main memory.
	Device string
	// Only are the names of lines to measure; none means all.
	Only []string
	// Quick takes few samples: it shows that the lines work, and no more.
	Quick bool
	// Rounds is how many rounds there are; 0: 20, or 2 if Quick.
	Rounds int
	// Program calls this program, for the children.
	Program []string
	// Profile is a file for a CPU profile of the node while 64 clients allocate; "" takes none.
	Profile string
	// LogLevel of bench's own nodes; "" is the node's default, one record a command.
	LogLevel string
	// Progress is told what is being done; nil: nobody is.
	Progress io.Writer
}

// line is one thing to measure.
type line interface {
	// open makes what the slices need.
	open(ctx context.Context, w *world) error
	// slice takes one round's part of the samples.
	slice(ctx context.Context, round int) error
	// report adds what was found.
	report(r *Report)
	// close lets go of what open made, also when open failed half-way.
	close()
}

// entry is a row of the table of lines.
type entry struct {
	name string
	// every is in how many rounds the line takes a slice: 1 in each, 4 in every fourth.
	every int
	// foreign lines can be measured on a node that is not ours.
	foreign bool
	// keys are the report's keys of the line, null where it is not measured.
	keys []string
	make func() line
}

func table(o Options) []entry {
	return []entry{
		{name: "idle", every: 1, keys: []string{keyIdleNode, keyIdleVault, keyIdleCPU}, make: func() line { return &idleLine{} }},
		{name: "echo", every: 1, foreign: true, make: func() line { return &echoLine{} }},
		{name: "get_pressure", every: 1, foreign: true, make: func() line { return &queryLine{} }},
		{name: "allocate", every: 1, foreign: true, keys: []string{keyAllocateP50, keyAllocateRate}, make: func() line { return &pairLine{key: "allocate"} }},
		{name: "allocate_named", every: 1, foreign: true, make: func() line { return &pairLine{key: "allocate_named", named: true} }},
		{name: "two_owners", every: 1, keys: []string{keyTwoOwners}, make: func() line { return &pairLine{key: "two_owners", owners: 2} }},
		{name: "formats", every: 1, foreign: true, keys: []string{keyFormats}, make: func() line { return &formatLine{} }},
		{name: "cold", every: 1, make: func() line { return &coldLine{} }},
		{name: "pressure", every: 1, keys: []string{keyPressure}, make: func() line { return &pressureLine{} }},
		{name: "refill", every: 1, keys: []string{keyRefill}, make: func() line { return &refillLine{} }},
		{name: "load", every: 1, keys: []string{keyLoad}, make: func() line { return &loadLine{} }},
		{name: "loaded", every: 3, keys: []string{keyLoadedP99, keyLoadKept}, make: func() line { return &loadedLine{} }},
		{name: "kill", every: 1, keys: []string{keyKill}, make: func() line { return &killLine{} }},
	}
}

// Lines are the names of everything that can be measured.
func Lines() []string {
	var out []string
	for _, e := range table(Options{}) {
		out = append(out, e.name)
	}
	return out
}

// Run measures. The report is complete where the error is nil.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Rounds == 0 {
		o.Rounds = 20
		if o.Quick {
			o.Rounds = 2
		}
	}
	for _, name := range o.Only {
		if !slices.Contains(Lines(), name) {
			return nil, fmt.Errorf("no line is called %q: choose from %s", name, strings.Join(Lines(), ", "))
		}
	}
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	r, err := w.measure(ctx)
	return r, errors.Join(err, w.close())
}

// chosen are the lines of this run: the echo is always among them, as what the others are
// compared with.
func (w *world) chosen() (lines []line, entries []entry, absent []entry) {
	for _, e := range table(w.opts) {
		wanted := len(w.opts.Only) == 0 || slices.Contains(w.opts.Only, e.name) || e.name == "echo"
		if !wanted || w.opts.NATSURL != "" && !e.foreign {
			absent = append(absent, e)
			continue
		}
		lines, entries = append(lines, e.make()), append(entries, e)
	}
	return lines, entries, absent
}

func (w *world) measure(ctx context.Context) (*Report, error) {
	begun := time.Now()
	lines, entries, absent := w.chosen()
	defer func() {
		for _, l := range slices.Backward(lines) {
			l.close()
		}
	}()
	for i, l := range lines {
		w.say("preparing %s", entries[i].name)
		if err := l.open(ctx, w); err != nil {
			return nil, fmt.Errorf("%s: %w", entries[i].name, err)
		}
		switch l := l.(type) {
		case *echoLine:
			w.echo = l
		case *pairLine:
			if l.key == "allocate" {
				w.oneOwner = l
			}
		}
	}
	for round := range w.opts.Rounds {
		w.say("round %d of %d", round+1, w.opts.Rounds)
		for k := range lines {
			i := (k + round) % len(lines)
			if round%entries[i].every != 0 {
				continue
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err := lines[i].slice(ctx, round); err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", entries[i].name, round+1, err)
			}
		}
	}
	if w.opts.Profile != "" && w.opts.NATSURL == "" {
		if err := w.profile(ctx); err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
	}
	r := newReport(w)
	for _, l := range lines {
		l.report(r)
	}
	for _, e := range absent {
		why := "left out by --only"
		if w.opts.NATSURL != "" && !e.foreign {
			why = absentReason(e.name)
		}
		for _, k := range e.keys {
			r.absent(k, why)
		}
	}
	r.Seconds = time.Since(begun).Seconds()
	return r, nil
}

// absentReason says why a line needs a node of bench's own.
func absentReason(name string) string {
	switch name {
	case "two_owners":
		return "needs a node that serves a second tenant: --embedded"
	case "pressure":
		return "needs a node with 64 simulated devices: --embedded"
	case "refill":
		return "needs two nodes, with a vault and without: --embedded"
	case "load", "loaded":
		return "needs a model of known bytes in the node's model root: --embedded"
	case "kill":
		return "needs a device that the killed process fills: --embedded"
	case "idle":
		return "needs the processes of a node that nobody else uses: --embedded"
	}
	return "needs a node of its own: --embedded"
}

// profile takes a CPU profile of the node while 64 clients allocate; not part of any figure.
func (w *world) profile(ctx context.Context) error {
	n, err := w.node(ctx, "profile", embedded.Spec{Settings: map[string][]string{"devices": {"ram:ram-0=2GiB"}}})
	if err != nil {
		return err
	}
	path, err := filepath.Abs(w.opts.Profile)
	if err != nil {
		return err
	}
	l := &pairLine{key: "profile", named: true}
	defer l.close()
	if err := l.open(ctx, &world{opts: w.opts, url: n.URL, device: "ram-0"}); err != nil {
		return err
	}
	defer l.nc.Close()
	stop, err := n.Profile(ctx, path)
	if err != nil {
		return err
	}
	w.say("profiling into %s", path)
	limit := 10 * time.Second
	if w.opts.Quick {
		limit = time.Second
	}
	// No more than a node remembers.
	begun := time.Now()
	for range 14 {
		if time.Since(begun) > limit {
			break
		}
		if _, _, err := measure.Run(64, 6400, l.pair); err != nil {
			return err
		}
	}
	return stop()
}

// series is what one kind of sample gave in all rounds.
type series struct {
	all  measure.Durations
	wall time.Duration
	// p50s and rates are by round.
	p50s, rates []float64
}

func (s *series) add(took measure.Durations, wall time.Duration, commands int) {
	s.all = append(s.all, took...)
	s.wall += wall
	s.p50s = append(s.p50s, float64(took.At(0.5)))
	s.rates = append(s.rates, float64(commands)/wall.Seconds())
}

// over is the median of the rounds' ratios.
func over(a, b []float64) float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return measure.Median(r)
}

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/isobar-project/isobar/weights/weightstest"
)

// Options are the sizes of the experiment. Zero fields have defaults.
type Options struct {
	// Root is put before /sys; "" means "/".
	Root string
	// Limit of the group; 2 GiB. Three quarters of it are filled with models.
	Limit int64
	// Rate is the growth of the foreign process in bytes a second; 2 GB/s. It grows to
	// three fifths of the limit.
	Rate int64
	// Rounds of each kind; 3.
	Rounds int
	// Program is how to call this program again.
	Program []string
	// Log takes what the nodes say, nil discards it.
	Log io.Writer
}

// Report is what an experiment came to.
type Report struct {
	Where         string // kernel and hierarchy
	Limit, Rate   int64
	Models        int
	Rounds        []Round
	KilledWith    int64 // kills in rounds with the optimizer
	FewestWithout int64 // the fewest kills in a round without
}

// Round is one round.
type Round struct {
	Relief  bool
	Kills   int64
	Victim  string // who was killed, as far as can be told
	Seen    *seen  // nil: the node did not live to tell
	Stalled string
}

// modelShare is a model's part of the limit: one in so many; modelCount of them are three
// quarters.
const (
	modelShare = 32
	modelCount = 24
)

// roundPatience bounds a round: minutes under emulation.
const roundPatience = 5 * time.Minute

// Run does the experiment.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Root == "" {
		o.Root = "/"
	}
	set := func(v *int64, to int64) {
		if *v == 0 {
			*v = to
		}
	}
	set(&o.Limit, 2<<30)
	set(&o.Rate, 2_000_000_000)
	if o.Rounds == 0 {
		o.Rounds = 3
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	version, _, err := hierarchy(o.Root)
	if err != nil {
		return nil, err
	}
	kernel, err := os.ReadFile(filepath.Join(o.Root, "proc/sys/kernel/osrelease"))
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	files, err := modelFiles(dir, o.Limit/modelShare)
	if err != nil {
		return nil, err
	}
	r := &Report{Where: fmt.Sprintf("Linux %s, control groups of version %d", strings.TrimSpace(string(kernel)), version),
		Limit: o.Limit, Rate: o.Rate, Models: len(files), FewestWithout: -1}
	for i := range 2 * o.Rounds {
		s := Spec{Dir: filepath.Join(dir, fmt.Sprint(i)), Limit: o.Limit, Models: files, Grow: o.Limit / 5 * 3, Rate: o.Rate, Relief: i%2 == 0}
		round, err := o.round(ctx, s, fmt.Sprintf("isobar-lab-%d-%d", os.Getpid(), i))
		if err != nil {
			return r, fmt.Errorf("round %d: %w", i+1, err)
		}
		r.add(round)
	}
	return r, nil
}

func (r *Report) add(x Round) {
	r.Rounds = append(r.Rounds, x)
	switch {
	case x.Relief:
		r.KilledWith += x.Kills
	case r.FewestWithout < 0 || x.Kills < r.FewestWithout:
		r.FewestWithout = x.Kills
	}
}

// Shown reports whether the experiment showed what it is for.
func (r *Report) Shown() bool { return r.KilledWith == 0 && r.FewestWithout >= 1 }

func modelFiles(dir string, size int64) ([]string, error) {
	root := filepath.Join(dir, "models")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	var files []string
	for i := range modelCount {
		path := filepath.Join(root, fmt.Sprintf("model-%d.safetensors", i))
		if err := weightstest.Sized(size, 1).WriteSafetensors(path); err != nil {
			return nil, err
		}
		files = append(files, path)
	}
	return files, nil
}

// round makes a group, runs the node in it, and counts.
func (o *Options) round(ctx context.Context, s Spec, name string) (Round, error) {
	ctx, cancel := context.WithTimeout(ctx, roundPatience)
	defer cancel()
	x := Round{Relief: s.Relief, Victim: "-"}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		return x, err
	}
	g, err := newGroup(o.Root, name, s.Limit)
	if err != nil {
		return x, err
	}
	s.Group = g.dir
	spec, err := json.Marshal(s)
	if err != nil {
		return x, err
	}
	cmd := exec.CommandContext(ctx, o.Program[0], append(append([]string{}, o.Program[1:]...), "lab-node", string(spec))...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, o.Log
	cmd.WaitDelay = time.Second
	failed := cmd.Run()
	var in seen
	if json.Unmarshal(said.Bytes(), &in) == nil {
		x.Seen = &in
	}
	x.Kills, err = g.kills()
	x.Stalled = g.stalled()
	if end := g.end(pause); err == nil {
		err = end
	}
	switch {
	case x.Kills > 0 && x.Seen != nil && x.Seen.Grown == nil:
		x.Victim = "the foreign process"
	case x.Kills > 0 && x.Seen == nil:
		x.Victim = "the node"
	case x.Kills > 0:
		x.Victim = "another"
	case failed != nil && err == nil:
		err = fmt.Errorf("the node: %w", failed)
	}
	return x, err
}

// pause lets the kernel finish with processes that were just killed.
func pause() {
	timer := time.NewTimer(50 * time.Millisecond)
	<-timer.C
}

// Markdown is the report's table.
func (r *Report) Markdown() string {
	var b strings.Builder
	gb := func(n int64) string { return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30)) }
	fmt.Fprintf(&b, "%s; limit %s; warm tier of %d unread models of %s; the foreign process grows by %s, at most at %.2f GB/s.\n\n",
		r.Where, gb(r.Limit), r.Models, gb(r.Limit/modelShare), gb(r.Limit/5*3), float64(r.Rate)/1e9)
	b.WriteString("| round | optimizer | OOM kills | killed | foreign grew at | used before | models before | after | level at the end | group's PSI some |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for i, x := range r.Rounds {
		mode, rate, used, before, after, level := "off", "did not finish", "-", "-", "-", "-"
		if x.Relief {
			mode = "on"
		}
		if s := x.Seen; s != nil {
			used, before, after, level = fmt.Sprintf("%.1f %%", s.Used), fmt.Sprint(s.Before), fmt.Sprint(s.After), s.Highest
			if s.Grown != nil && s.Grown.Seconds > 0 {
				rate = fmt.Sprintf("%.2f GB/s", float64(s.Grown.Bytes)/1e9/s.Grown.Seconds)
			}
		}
		fmt.Fprintf(&b, "| %d | %s | %d | %s | %s | %s | %s | %s | %s | %s |\n", i+1, mode, x.Kills, x.Victim, rate, used, before, after, level, x.Stalled)
	}
	fmt.Fprintf(&b, "\nOOM kills with the optimizer: %d in all; without it: at least %d a round.\n", r.KilledWith, r.FewestWithout)
	return b.String()
}

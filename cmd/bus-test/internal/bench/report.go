package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
)

// The keys of the report that have a target.
const (
	keyAllocateP50  = "allocate_p50_over_echo"
	keyAllocateRate = "allocate_throughput_over_echo"
	keyTwoOwners    = "two_owners_p50_over_one"
	keyFormats      = "msgpack_p50_over_json"
	keyPressure     = "pressure_event_p99_over_echo_p99"
	keyRefill       = "vault_refill_over_off"
	keyLoad         = "load_over_pread"
	keyLoadedP99    = "allocate_p99_loaded_over_idle"
	keyLoadKept     = "load_rate_kept"
	keyKill         = "consumer_kill_p99_ms"
	keyIdleNode     = "idle_node_rss_anon_mb"
	keyIdleVault    = "idle_vault_rss_anon_mb"
	keyIdleCPU      = "idle_cpu_percent"
)

// target is what a figure is held to.
type target struct {
	key, what string
	// least or most bound the figure; NaN where there is no bound.
	least, most float64
}

func targets() []target {
	none := math.NaN()
	return []target{
		{keyAllocateP50, "p50 of allocate ÷ raw echo, 1 in flight", none, 0.95},
		{keyAllocateRate, "commands a second ÷ raw echo's, 64 in flight", 0.45, none},
		{keyTwoOwners, "p50 of allocate by two owners in turn ÷ by one", none, none},
		{keyFormats, "p50 of allocate, MessagePack ÷ JSON, typed client", none, none},
		{keyPressure, "p99 of publish → pressure event, loaded ÷ raw echo, unloaded", none, 4},
		{keyRefill, "time to fill beyond the warm pool, with a vault ÷ without", none, 1.10},
		{keyLoad, "load of a cached file ÷ bare pread loop, bytes a second", 0.90, none},
		{keyLoadedP99, "p99 of allocate during a large load ÷ idle", none, 3},
		{keyLoadKept, "that load's rate ÷ its rate alone", 0.70, none},
		{keyKill, "consumer killed → its bytes another's, p99, ms", none, 20},
		{keyIdleNode, "idle node, RssAnon, MB", none, 40},
		{keyIdleVault, "idle vault, RssAnon, MB", none, 4},
		{keyIdleCPU, "idle node and vault, percent of a core", none, 0.5},
	}
}

func (t target) bound() string {
	switch {
	case !math.IsNaN(t.least):
		return fmt.Sprintf("≥ %g", t.least)
	case !math.IsNaN(t.most):
		return fmt.Sprintf("≤ %g", t.most)
	}
	return ""
}

// Verdict says whether a figure meets its target.
type Verdict struct {
	Key     string   `json:"key"`
	Value   *float64 `json:"value"`
	Target  string   `json:"target,omitempty"`
	Verdict string   `json:"verdict"`
	What    string   `json:"what"`
}

// The verdicts.
const (
	Met         = "met"
	Missed      = "missed"
	NotMeasured = "not measured"
	Reported    = "reported" // there is no target
)

// Report is what a run found. It marshals as one object, with the headline keys at the top.
type Report struct {
	// Figures are the headline keys; nil is null.
	Figures map[string]*float64
	// Raw is what they were made of.
	Raw map[string]any
	// NotMeasured says why a key is null.
	NotMeasured map[string]string
	Environment measure.Environment
	Embedded    bool
	Quick       bool
	Rounds      int
	Seconds     float64
}

func newReport(w *world) *Report {
	r := &Report{Figures: map[string]*float64{}, Raw: map[string]any{}, NotMeasured: map[string]string{}, Environment: measure.Here(),
		Embedded: w.opts.NATSURL == "", Quick: w.opts.Quick, Rounds: w.opts.Rounds}
	for _, t := range targets() {
		r.Figures[t.key] = nil
	}
	return r
}

// set gives a headline key its figure.
func (r *Report) set(key string, f float64) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		r.absent(key, "no samples")
		return
	}
	f = math.Round(f*1e4) / 1e4
	r.Figures[key] = &f
}

func (r *Report) absent(key, why string) { r.Figures[key], r.NotMeasured[key] = nil, why }

// Verdicts are the headline keys beside their targets.
func (r *Report) Verdicts() []Verdict {
	var out []Verdict
	for _, t := range targets() {
		v := Verdict{Key: t.key, Value: r.Figures[t.key], Target: t.bound(), What: t.what, Verdict: Met}
		switch {
		case v.Value == nil:
			v.Verdict = NotMeasured
		case v.Target == "" || !r.Embedded:
			v.Verdict = Reported
		case *v.Value < t.least || *v.Value > t.most:
			v.Verdict = Missed
		}
		out = append(out, v)
	}
	return out
}

// Missed counts the targets that were measured and not met.
func (r *Report) Missed() int {
	n := 0
	for _, v := range r.Verdicts() {
		if v.Verdict == Missed {
			n++
		}
	}
	return n
}

// MarshalJSON implements json.Marshaler.
func (r *Report) MarshalJSON() ([]byte, error) {
	all := map[string]any{"raw": r.Raw, "environment": r.Environment, "embedded": r.Embedded, "quick": r.Quick, "rounds": r.Rounds,
		"seconds": math.Round(r.Seconds*10) / 10, "targets": r.Verdicts(), "not_measured": r.NotMeasured}
	for k, v := range r.Figures {
		all[k] = v
	}
	return json.Marshal(all)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	e := r.Environment
	fmt.Fprintf(w, "%s, %d cpus (%s), kernel %s, %s, %d rounds in %.0f s\n\n", e.Date, e.CPUs, e.CPUModel, e.Kernel, e.GoVersion, r.Rounds, r.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tVALUE\tTARGET\tVERDICT\tWHAT")
	for _, v := range r.Verdicts() {
		value := "–"
		if v.Value != nil {
			value = fmt.Sprintf("%.3f", *v.Value)
		}
		verdict := v.Verdict
		if why := r.NotMeasured[v.Key]; why != "" {
			verdict += ": " + why
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", v.Key, value, v.Target, verdict, v.What)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RAW\tCOUNT\tP50 µs\tP90 µs\tP99 µs\tMAX µs\tA SECOND")
	var others []string
	for _, k := range keysOf(r.Raw) {
		s, ok := r.Raw[k].(measure.Summary)
		if !ok {
			others = append(others, fmt.Sprintf("%s = %v", k, r.Raw[k]))
			continue
		}
		rate := ""
		if s.PerSecond > 0 {
			rate = fmt.Sprintf("%.0f", s.PerSecond)
		}
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%s\n", k, s.Count, s.P50us, s.P90us, s.P99us, s.MaxUs, rate)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(others, "\n"))
	return err
}

func keysOf(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

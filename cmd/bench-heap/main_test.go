package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/heap/replay"
)

// The figures of the table are those of the JSON, and a call that allocates is seen.
func TestTheReportHasWhatTheTablesSay(t *testing.T) {
	var out strings.Builder
	r := &report{Traces: "synthetic"}
	r.arenas(replay.Synthetic(1), &out)
	if len(r.Arenas) != 2 || r.Large < 1 || r.Odd < 1 || !strings.Contains(out.String(), "| synthetic_step |") {
		t.Errorf("%+v\n%s", r, &out)
	}
	s := measureSpeed(200, 1000)
	if s.Live != 200 || s.PairP50 > s.PairP99 || s.HeapAllocs != 0 {
		t.Errorf("%+v", s)
	}
	if f := measureFootprint(10_000); f.Bytes < 10 || f.Bytes > 200 {
		t.Errorf("a block takes %.0f bytes", f.Bytes)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	if _, err := measure(t.TempDir(), "", true, &out); err == nil {
		t.Error("a folder that was named and has no traces is not an error")
	}
}

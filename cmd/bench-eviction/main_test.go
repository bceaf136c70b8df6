package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/eviction/replay"
)

func TestTheReportHasEveryPolicyAndCapacity(t *testing.T) {
	r, err := measure(replay.Synthetic(5, 600), false)
	if err != nil {
		t.Fatal(err)
	}
	r.Trace = replay.SyntheticName
	if want := len(eviction.Names()) * 6; len(r.Scores) != want {
		t.Fatalf("%d scores, want %d", len(r.Scores), want)
	}
	for i, s := range r.Scores {
		if s.Score < 1 || s.Worst < s.Score || len(s.Scores) != 5 {
			t.Errorf("%+v", s)
		}
		if own := i < 6; own != (s.Policy == eviction.DefaultName) || own != (s.Most > 0) || s.Least > s.Most {
			t.Errorf("%+v", s)
		}
	}
	if len(r.Tiers) != 8 || r.Tiers[0].Policy != eviction.DefaultName || r.Tiers[7].Seconds < r.Tiers[7].First {
		t.Errorf("tiers %+v", r.Tiers)
	}
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{"synthetic", "measured costs", "bandwidth costs", "\ncost ", "\nlru ", "cost, perturbed", "10 %", "25 %", "50 %", "\ntwo tiers", "together", "node", "apart", "exclusive"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Fatal(err)
	}
}

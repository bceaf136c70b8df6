package health_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/health"
	"github.com/isobar-project/isobar/schemas"
)

func board() (*health.Board, *clock.Manual, *[]string) {
	var told []string
	c := clock.NewManual(0, time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC))
	return health.NewBoard(c, func(ch health.Change) {
		sign := "-"
		if ch.Raised {
			sign = "+"
		}
		told = append(told, sign+string(ch.Warning.Code)+ch.Warning.DeviceID)
	}), c, &told
}

func TestChangesAreToldOnceAndInOrder(t *testing.T) {
	b, c, told := board()
	drift := schemas.HealthWarning{Code: schemas.WarnDrift, DeviceID: "ram-0", Text: "by 1 MiB"}
	stale := schemas.HealthWarning{Code: schemas.WarnStaleSamples, DeviceID: "ram-0"}
	b.Say("ram-0", drift)
	begun := c.Wall()
	c.Advance(time.Minute)
	drift.Text = "by 2 MiB"
	b.Say("ram-0", drift, drift, stale)
	b.Say("bus", schemas.HealthWarning{Code: schemas.WarnDisconnected})
	if want := []string{"+driftram-0", "+stale_samplesram-0", "+nats_disconnected"}; !slices.Equal(*told, want) {
		t.Fatalf("told %v", *told)
	}
	l := b.List()
	if len(l) != 3 || l[0].Code != schemas.WarnDisconnected || l[0].Severity != schemas.SeverityCritical {
		t.Fatalf("the worst is not the first: %+v", l)
	}
	if l[1].Text != "by 2 MiB" || !l[1].Since.Equal(begun) || l[1].Severity != schemas.SeverityWarning {
		t.Errorf("in other words: %+v", l[1])
	}
	b.Say("bus")
	b.Say("ram-0", stale)
	if got := (*told)[3:]; !slices.Equal(got, []string{"-nats_disconnected", "-driftram-0"}) {
		t.Errorf("told %v", got)
	}
	// What comes back begins anew.
	c.Advance(time.Minute)
	b.Say("ram-0", stale, drift)
	if l := b.List(); len(l) != 2 || !l[0].Since.Equal(begun.Add(2*time.Minute)) {
		t.Errorf("came back: %+v", l)
	}
}

func TestSourcesDoNotTouchOneAnother(t *testing.T) {
	b, _, _ := board()
	b.Say("a", schemas.HealthWarning{Code: schemas.WarnDrift, DeviceID: "a"})
	b.Say("b", schemas.HealthWarning{Code: schemas.WarnDrift, DeviceID: "b"})
	b.Say("a")
	if l := b.List(); len(l) != 1 || l[0].DeviceID != "b" {
		t.Errorf("left: %+v", l)
	}
}

func ExampleBoard() {
	b := health.NewBoard(clock.Real(), func(c health.Change) { fmt.Println(c.Raised, c.Warning.Code, c.Warning.Severity) })
	b.Say("vault", schemas.HealthWarning{Code: schemas.WarnVaultMissing, Text: "the vault died", Fix: "restart the node"})
	b.Say("vault")
	// Output:
	// true vault_missing critical
	// false vault_missing critical
}

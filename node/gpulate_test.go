package node

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/health"
	"github.com/isobar-project/isobar/schemas"
)

// insisting is a configuration that says that there are GPUs.
func insisting(t *testing.T) Config {
	t.Helper()
	m := newMachine()
	cfg, err := Load(&m.World, everything, Given{Flags: map[string][]string{"gpus": {"on"}}})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A driver that is not to be had at the start is looked for with growing pauses, and told of when
// it is there; it is not used. Without anybody interested nothing is looked for.
func TestALateDriverIsTold(t *testing.T) {
	cfg := insisting(t)
	armed := make(chan time.Duration, 8)
	c := arming{clock.NewManual(0, time.Unix(0, 0)), armed}
	looks := atomic.Int64{}
	gpus := gpusOf(1)
	gpus.closed = make(chan struct{}, 1)
	b := findGPUs(&cfg, func(string, string) (device.Runtime, error) {
		if looks.Add(1) < 4 {
			return nil, errors.New("it is not there")
		}
		return gpus, nil
	}, c)
	heard := make(chan []string, 8)
	b.late.tell(func(ids []string) { heard <- ids })
	b.wait()
	if b.failure == nil || <-armed != gpuPatience {
		t.Fatalf("failure %v", b.failure)
	}
	for _, want := range []time.Duration{lateFirst, 2 * lateFirst, 4 * lateFirst} {
		if pause := <-armed; pause != want {
			t.Errorf("looks again after %v, not %v", pause, want)
		}
		c.Clock.(*clock.Manual).Advance(want)
	}
	<-gpus.closed
	if ids := <-heard; !slices.Equal(ids, []string{lateDriver}) || looks.Load() != 4 || len(b.devices()) != 0 {
		t.Errorf("heard %q after %d looks, devices %v", ids, looks.Load(), b.devices())
	}
	b.close()

	b = findGPUs(&cfg, func(string, string) (device.Runtime, error) { return nil, errors.New("it is not there") }, c)
	for pause := time.Duration(0); pause != lateFirst; pause = <-armed {
	}
	b.close()
	c.Clock.(*clock.Manual).Advance(lateLast)
	if len(armed) != 0 {
		t.Error("it is looked for after the end")
	}
}

// What came late is a warning with the fix, which stays what it is as more comes.
func TestLateGPUsAreAWarning(t *testing.T) {
	changes := 0
	n := &Node{cfg: insisting(t), board: health.NewBoard(clock.Real(), func(health.Change) { changes++ })}
	for _, c := range []struct {
		ids  []string
		text string
	}{{[]string{"gpu-1"}, "gpu-1 came up"}, {[]string{"gpu-1", "gpu-2"}, "gpu-1, gpu-2 came up"}, {[]string{lateDriver}, "the GPUs' driver came up"}} {
		n.reportLateGPUs(c.ids)
		ws := n.board.List()
		if len(ws) != 1 || ws[0].Code != schemas.WarnGPUReady || !strings.HasPrefix(ws[0].Text, c.text) || !strings.Contains(ws[0].Fix, "restart") {
			t.Errorf("%v: %+v", c.ids, ws)
		}
	}
	if changes != 1 {
		t.Errorf("told %d times", changes)
	}
}

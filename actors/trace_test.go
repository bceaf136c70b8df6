package actors_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/eviction/replay"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// paced is a device on which the next load takes as long as it is told, in virtual time.
type paced struct {
	device.Driver
	clock *clock.Manual
	next  atomic.Int64
}

func (p *paced) Fill(ctx context.Context, seg device.Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	if d := p.next.Swap(0); d > 0 {
		p.clock.Advance(time.Duration(d))
	}
	return p.Driver.Fill(ctx, seg, off, f, fileOff, n)
}

// small is the beginning of a trace of model requests, one model at a time, with sizes in
// steps of 2 MiB for what are gigabytes, and a device for a quarter of the bytes.
func small(t *testing.T, requests int) (*replay.Trace, replay.Bound) {
	t.Helper()
	whole, err := replay.Read("../../shared/traces")
	if errors.Is(err, fs.ErrNotExist) {
		whole, err = replay.Synthetic(1, requests), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return shrunk(whole, requests)
}

func shrunk(whole *replay.Trace, requests int) (*replay.Trace, replay.Bound) {
	cut := &replay.Trace{}
	objects := []eviction.Object{}
	at := map[int]int{}
	var total int64
	for _, needs := range whole.Requests {
		for _, i := range needs {
			if len(cut.Requests) == requests {
				break
			}
			if _, ok := at[i]; !ok {
				o := whole.Assignments[0].Costs[replay.Measured][i]
				at[i] = len(objects)
				objects = append(objects, eviction.Object{
					Key: o.Key, Bytes: max(1, o.Bytes>>31) * 2 * mib,
					Cost: float64(max(1, int64(o.Cost*1000))) / 1000, // whole milliseconds
				})
				cut.Models = append(cut.Models, o.Key)
				total += objects[at[i]].Bytes
			}
			cut.Requests = append(cut.Requests, []int{at[i]})
		}
	}
	cut.Assignments = []replay.Assignment{{Seed: "small", Costs: map[string][]eviction.Object{replay.Measured: objects}}}
	return cut, replay.Bound{Cost: replay.Measured, Seed: "small", Fraction: .25, Capacity: total / 4 / (2 * mib) * 2 * mib, Seconds: 1}
}

// outwait sends a load that waits for what was just loaded, for that long of the clock's time;
// 0: it does not wait.
func (h *timed) outwait(wait time.Duration, c *actors.Command) answer {
	h.t.Helper()
	answered := h.send(c)
	late := time.After(20 * time.Second)
	for wait > 0 {
		q := call[*schemas.GetQueueReply](h.t, h.house, schemas.ActionGetQueue, &schemas.GetQueueRequest{DeviceID: "gpu-0"})
		if len(q.Waiting) == 1 && strings.Contains(q.Waiting[0].WaitsFor, "just loaded") {
			h.clock.Advance(wait)
			break
		}
		select {
		case a := <-answered:
			h.t.Fatalf("it does not wait %v for what was just loaded: %+v %v", wait, a.data, a.err)
		case <-late:
			h.t.Fatalf("it waits for something else: %+v", q.Waiting)
		default:
		}
	}
	for {
		select {
		case a := <-answered:
			return a
		case <-time.After(time.Millisecond):
			h.clock.Advance(0) // what was set meanwhile for a moment that has come
			continue
		case <-late:
		}
		q := call[*schemas.GetQueueReply](h.t, h.house, schemas.ActionGetQueue, &schemas.GetQueueRequest{DeviceID: "gpu-0"})
		h.t.Fatalf("%v were not long enough: %+v", wait, q.Waiting)
	}
}

// The node evicts for a trace of requests, and when, what the same trace evicts in a replay without a
// node: what is measured there holds here.
func TestTheNodeDecidesAsTheReplayDoes(t *testing.T) {
	decidesAsTheReplay(t, 0, func() (*replay.Trace, replay.Bound) { return small(t, 250) })
}

// The same of requests that are made up, some of which wait for what was just loaded.
func TestTheNodeWaitsAsTheReplayDoes(t *testing.T) {
	decidesAsTheReplay(t, 3, func() (*replay.Trace, replay.Bound) { return shrunk(replay.Synthetic(1, 250), 250) })
}

// decidesAsTheReplay follows a trace, of which so many requests at least have to wait.
func decidesAsTheReplay(t *testing.T, wait int, read func() (*replay.Trace, replay.Bound)) {
	t.Helper()
	trace, bound := read()
	policy, err := eviction.New("")
	if err != nil {
		t.Fatal(err)
	}
	want, waits := make([][]string, len(trace.Requests)), make([]time.Duration, len(trace.Requests))
	if _, err := trace.Follow(bound, policy, func(request int, waited time.Duration, plan eviction.Plan) {
		waits[request] = waited
		for _, v := range plan.Victims {
			want[request] = append(want[request], v.Key)
		}
	}); err != nil {
		t.Fatal(err)
	}

	var slow *paced
	h := openTimed(t, nil, func(c *actors.Config) {
		manual := c.Clock.(*clock.Manual)
		d, err := sim.New(sim.Config{ID: "gpu-0", Bytes: bound.Capacity, Clock: manual})
		if err != nil {
			t.Fatal(err)
		}
		slow = &paced{Driver: d, clock: manual}
		c.Devices = []actors.DeviceConfig{{Driver: slow, ReliefOff: true}}
	})
	objects := trace.Assignments[0].Costs[replay.Measured]
	written := map[int]string{}
	evictions, waited := 0, 0
	for n, needs := range trace.Requests {
		o := objects[needs[0]]
		path, ok := written[needs[0]]
		if !ok {
			path = filepath.Join(h.roots, o.Key+".safetensors")
			if err := weightstest.Sized(o.Bytes, uint64(needs[0])).WriteSafetensors(path); err != nil {
				t.Fatal(err)
			}
			written[needs[0]] = path
		}
		h.clock.Advance(time.Second)
		slow.next.Store(int64(o.Cost * float64(time.Second)))
		a := h.outwait(waits[n], &actors.Command{Action: schemas.ActionLoadModel, RequestID: "r", Wait: time.Hour,
			Data: &schemas.LoadModelRequest{Name: o.Key, Path: path, TimeoutSeconds: ptr[int64](120)}})
		if a.err != nil {
			t.Fatal(a.err)
		}
		slow.next.Store(0)
		var got []string
		for _, e := range a.data.(*schemas.LoadModelReply).Evicted {
			got = append(got, e.Model)
		}
		if !slices.Equal(got, want[n]) {
			t.Fatalf("request %d, for %s (%d bytes): the node evicts %v, the replay %v", n, o.Key, o.Bytes, got, want[n])
		}
		evictions += len(got)
		if waits[n] > 0 {
			waited++
		}
	}
	if evictions < 20 || waited < wait {
		t.Fatalf("only %d evictions, and %d that waited: that proves little", evictions, waited)
	}
}

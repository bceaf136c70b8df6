package actors_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/vault"
)

// staged is a device that makes segments in two steps.
type staged struct {
	*sim.Driver
	begin, finish func() error
}

// Begin implements device.Stager.
func (s *staged) Begin(ctx context.Context, bytes int64, o device.CreateOptions) (device.Segment, error) {
	if s.begin != nil {
		if err := s.begin(); err != nil {
			return nil, err
		}
	}
	return s.Driver.Create(ctx, bytes, o)
}

// Finish implements device.Stager.
func (s *staged) Finish(context.Context, device.Segment) error { return s.finish() }

// openable is a vault whose puts a test sees, or has fail.
type openable struct {
	vault.Keeper
	put func() error
}

func (o *openable) Put(entries ...vault.Entry) error {
	if err := o.put(); err != nil {
		return err
	}
	return o.Keeper.Put(entries...)
}

func openStaged(t *testing.T, dev *staged, keeper vault.Keeper) *timed {
	t.Helper()
	return openTimed(t, nil, func(c *actors.Config) {
		c.Keeper = keeper
		c.Devices = []actors.DeviceConfig{{Driver: dev}}
	})
}

// kept counts what a vault holds.
func kept(t *testing.T, k vault.Keeper) int {
	t.Helper()
	list, err := k.List()
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A descriptor goes to the vault before its segment is finished, and nobody is answered before both
// are done.
func TestTheVaultIsNotWaitedFor(t *testing.T) {
	put := make(chan struct{})
	var finished atomic.Bool
	dev := &staged{Driver: gpu(t, "gpu-0", 1<<30), finish: func() error { <-put; finished.Store(true); return nil }}
	h := openStaged(t, dev, &openable{vault.Off(), func() error { close(put); return nil }})
	h.allocate(schemas.AllocateRequest{SizeBytes: 4 * mib, DeviceID: "gpu-0"})
	is(t, "finished", finished.Load(), true)
}

// A segment that cannot be finished leaves nothing, in the vault neither.
func TestWhatIsNotFinishedLeavesNothing(t *testing.T) {
	dev := &staged{Driver: gpu(t, "gpu-0", 1<<30), finish: func() error { return errors.New("no page tables") }}
	keeper := vault.Off()
	h := openStaged(t, dev, keeper)
	a := <-h.send(&actors.Command{Action: schemas.ActionAllocate, Data: &schemas.AllocateRequest{SizeBytes: 4 * mib, DeviceID: "gpu-0"}, RequestID: "r"})
	if a.err == nil {
		t.Fatalf("granted: %+v", a.data)
	}
	is(t, "kept", kept(t, keeper), 0)
	is(t, "used", h.used("gpu-0"), int64(0))
	s, err := dev.Sample()
	if err != nil {
		t.Fatal(err)
	}
	is(t, "the driver's bytes", s.OursBytes, int64(0))
}

// physical is a device that is no simulation.
type physical struct{ *sim.Driver }

func (p physical) Info() device.Info {
	i := p.Driver.Info()
	i.Simulated = false
	return i
}

// Places for long calls are asked for where memory takes long to make. Changing their number stops
// the process: a grant of a GPU's memory is over sooner.
func TestWhoSitsInLongCalls(t *testing.T) {
	for _, c := range []struct {
		bytes int64
		long  bool
	}{{64 * mib, false}, {1 << 30, true}} {
		var mu sync.Mutex
		long, calls := false, 0
		h := openTimed(t, nil, func(f *actors.Config) {
			f.Devices = []actors.DeviceConfig{{Driver: physical{gpu(t, "gpu-0", 2<<30)}}}
			f.Blocking = func(n int) {
				mu.Lock()
				defer mu.Unlock()
				calls++
				long = long || n > 0
			}
		})
		h.allocate(schemas.AllocateRequest{SizeBytes: c.bytes, DeviceID: "gpu-0"})
		mu.Lock()
		is(t, fmt.Sprintf("a place for making %d bytes", c.bytes), long, c.long)
		is(t, "more than one place", calls > 0, true)
		mu.Unlock()
	}
}

// Whatever fails, and in which order the parts of a creation end, vault, driver and ledger have the
// same segments in the end.
func TestCreationsThatFail(t *testing.T) {
	all, good := 0, 0
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(seed, 1))
			maybe := func(what error) func() error {
				return func() error {
					mu.Lock()
					defer mu.Unlock()
					if random.IntN(6) == 0 {
						return what
					}
					return nil
				}
			}
			dev := &staged{Driver: gpu(t, "gpu-0", 1<<30), begin: maybe(errors.New("begin")), finish: maybe(errors.New("finish"))}
			keeper := &openable{vault.Off(), maybe(errors.New("put"))}
			h := openStaged(t, dev, keeper)
			var replies []reply
			for range 40 {
				replies = append(replies, h.send(&actors.Command{Action: schemas.ActionAllocate, RequestID: "r",
					Data: &schemas.AllocateRequest{SizeBytes: 4 * mib, DeviceID: "gpu-0", Purpose: "test"}}))
			}
			granted := 0
			for _, r := range replies {
				if a := <-r; a.err == nil {
					granted++
				}
			}
			h.pass(0)
			s, err := dev.Sample()
			if err != nil {
				t.Fatal(err)
			}
			is(t, "kept", kept(t, keeper), granted)
			is(t, "used", h.used("gpu-0"), int64(granted)*4*mib)
			if s.OursBytes > int64(granted)*4*mib { // less: a simulated device is sparse
				t.Errorf("the driver has %d bytes of %d grants", s.OursBytes, granted)
			}
			all, good = all+len(replies), good+granted
		})
	}
	if good == 0 || good == all {
		t.Errorf("%d of %d granted: nothing was tried", good, all)
	}
}

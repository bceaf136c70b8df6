//go:build linux

package cuda

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// state is what is wrong with a device. The zero value is a healthy one.
type state struct {
	mu   sync.Mutex
	list map[string]ailment
	gone error // why the device is lost; it never comes back
}

// ailment is one thing that is wrong; what names it.
type ailment struct {
	health device.Health
	reason string
}

// set notes what is wrong.
func (st *state) set(what string, h device.Health, reason string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	list := maps.Clone(st.list) // the old one may be looked at
	if list == nil {
		list = map[string]ailment{}
	}
	list[what] = ailment{h, reason}
	st.list = list
}

// unset notes that it is well again.
func (st *state) unset(what string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if _, ok := st.list[what]; ok {
		st.list = maps.Clone(st.list)
		delete(st.list, what)
	}
}

// health is the gravest of all.
func (st *state) health() device.Health {
	st.mu.Lock()
	defer st.mu.Unlock()
	h := device.Healthy
	for _, a := range st.list {
		h = max(h, a.health)
	}
	return h
}

// reasons says all that is wrong, the gravest first.
func (st *state) reasons() []string {
	st.mu.Lock()
	defer st.mu.Unlock()
	list := slices.Collect(maps.Values(st.list))
	slices.SortFunc(list, func(a, b ailment) int {
		if a.health != b.health {
			return int(b.health) - int(a.health)
		}
		if a.reason < b.reason {
			return -1
		}
		return 1
	})
	var out []string
	for _, a := range list {
		out = append(out, a.reason)
	}
	return out
}

// lose makes the device lost, for good; the first reason is the one that is told.
func (st *state) lose(why error) error {
	st.mu.Lock()
	if st.gone == nil {
		st.gone = why
	}
	why = st.gone
	st.mu.Unlock()
	st.set("lost", device.Lost, fmt.Sprintf("the GPU answers nothing any more after %v: restart the node; if it stays lost, reset the GPU or the machine", why))
	return fmt.Errorf("%w: %w", device.ErrLost, why)
}

// lost says why every call fails, nil where none need.
func (d *Driver) lost() error {
	d.state.mu.Lock()
	defer d.state.mu.Unlock()
	if d.state.gone == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %w", d.c.ID, device.ErrLost, d.state.gone)
}

// fault finds in an error what it means for the device: no memory, or its end.
func (d *Driver) fault(err error) error {
	var call *api.Error
	var nvml *api.NVMLError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &call) && call.Code == api.OutOfMemory:
		return fmt.Errorf("%w: %w", device.ErrOutOfMemory, err)
	case errors.As(err, &call) && call.Code.Sticky():
		return d.state.lose(fmt.Errorf("%w: %w", call, device.ErrContext))
	case errors.As(err, &nvml) && nvml.Code == api.GPULost:
		return d.state.lose(nvml)
	}
	return err
}

// hangs notes memory whose unmap has not returned.
func (d *Driver) hangs(s *Segment) {
	d.state.set(fmt.Sprintf("segment %p", s), device.Degraded,
		fmt.Sprintf("%d bytes are not back, since the driver's unmap hangs: a process that used them may hang, too; if it stays, restart the node", s.bytes))
}

// stays notes memory that the driver did not take back.
func (d *Driver) stays(s *Segment, err error) {
	d.state.set(fmt.Sprintf("segment %p", s), device.Degraded,
		fmt.Sprintf("%d bytes could not be given back (%v): they count until they are; restart the node to have them back", s.bytes, err))
}

// back notes that they came back after all.
func (d *Driver) back(s *Segment) { d.state.unset(fmt.Sprintf("segment %p", s)) }

// watch is NVML's view of a GPU.
type watch struct {
	nvml  *api.NVML // nil where there is none, and why says the reason
	why   error
	gpu   api.GPU
	clock clock.Clock

	mu     sync.Mutex
	set    api.EventSet
	looked bool
	next   clock.Instant
}

// lookEvery is how often counters of errors are read; events are taken with every sample.
const lookEvery = 5 * time.Second

// newWatch finds the GPU in NVML and begins to listen for what happens to it.
func newWatch(r *Runtime, uuid string, c clock.Clock) *watch {
	if r.nvml == nil {
		return &watch{why: r.unwatched, clock: c}
	}
	gpu, err := r.nvml.GPU(uuid)
	if err != nil {
		return &watch{why: err, clock: c}
	}
	w := &watch{nvml: r.nvml, gpu: gpu, clock: c}
	if set, err := r.nvml.Listen(gpu); err == nil {
		w.set = set
	} // else it does not report events, as in many containers; the counters tell most of it
	return w
}

func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.set != 0 {
		_ = w.nvml.CloseSet(w.set)
		w.set = 0
	}
}

// maxEvents bounds how many events one look takes.
const maxEvents = 64

// look notes what NVML reports. Its error is the end of the device; what NVML merely does not
// know is no error.
func (w *watch) look(st *state) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nvml == nil {
		st.set("nvml", device.Healthy, fmt.Sprintf("health and other processes are not watched: %v", w.why))
		return nil
	}
	if w.set != 0 {
		for range maxEvents {
			xid, ok, err := w.nvml.NextXid(w.set)
			var nvml *api.NVMLError
			if errors.As(err, &nvml) && nvml.Code == api.GPULost {
				return err
			}
			if !ok {
				break
			}
			if err := struck(st, xid); err != nil {
				return err
			}
		}
	}
	if now := w.clock.Now(); !w.looked || now >= w.next {
		w.looked, w.next = true, now.Add(lookEvery)
		w.count(st)
	}
	return nil
}

// count reads the counters of errors.
func (w *watch) count(st *state) {
	if n, ok := w.nvml.UncorrectedErrors(w.gpu); ok && n > 0 {
		st.set("ecc", device.Degraded, fmt.Sprintf("%d memory errors since the driver was loaded could not be corrected: check models (load_model with verify), and reset the GPU when it is idle", n))
	} else {
		st.unset("ecc")
	}
	pending, failed, ok := w.nvml.RemappedRows(w.gpu)
	st.unset("rows")
	switch {
	case ok && failed:
		st.set("rows", device.Failing, "a row of memory is broken and cannot be replaced: have the GPU replaced")
	case ok && pending:
		st.set("rows", device.Degraded, "a row of memory is to be replaced: reset the GPU when it is idle")
	}
}

// xids are the critical errors that say something of the device; others (13, 31, 43, 45 …) are
// those of one program.
var xids = map[uint64]ailment{
	48:  {device.Degraded, "a memory error of two bits"},
	62:  {device.Failing, "the GPU's own processor has halted"},
	63:  {device.Degraded, "a row of memory is to be replaced at the next reset"},
	64:  {device.Failing, "a row of memory could not be replaced"},
	74:  {device.Failing, "an NVLink has failed"},
	79:  {device.Lost, "the GPU has fallen off the bus"},
	92:  {device.Degraded, "memory errors are frequent"},
	94:  {device.Degraded, "a memory error was contained in one program"},
	95:  {device.Failing, "a memory error was not contained: reset the GPU"},
	119: {device.Failing, "the GPU's system processor does not answer: reset the GPU"},
	120: {device.Failing, "the GPU's system processor has failed: reset the GPU"},
	154: {device.Failing, "the driver asks for a reset of the GPU"},
}

// struck notes a critical error; one that ends the device is returned.
func struck(st *state, xid uint64) error {
	a, known := xids[xid]
	if !known {
		return nil
	}
	reason := fmt.Sprintf("%s (Xid %d)", a.reason, xid)
	if a.health == device.Lost {
		return st.lose(errors.New(reason))
	}
	st.set(fmt.Sprintf("xid %d", xid), a.health, reason)
	return nil
}

package actors

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights"
)

// transferActor owns the running copies: model files that are being looked at, loads from
// disk into segments, and bytes on their way from one segment to another.
type transferActor struct {
	inbox
	house   *House
	ctx     context.Context
	cancel  context.CancelFunc
	crew    crew
	running map[*catalog.Copy]*fill
	feeds   map[*catalog.Copy]*task // copies of models that are made of other copies
	waiting []*fill
	active  int
	checks  map[*checking]bool // models that are being compared with their files
	tasks   map[*task]bool     // copies and clears on the devices' workers
	moves   map[*move]bool     // transfers, from their hold on
}

// fill is one load of one model.
type fill struct {
	copy   *catalog.Copy
	source *source
	lent   lent
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// source is an open model with its layout: what inspecting it leaves for the load.
type source struct {
	model  *weights.Model
	layout *weights.Layout
}

// lent are a grant's segments, for as long as a load runs.
type lent struct {
	driver   device.Driver
	segments []device.Segment
	fail     error
}

var errStopped = errors.New("the load was given up")

func newTransfer(h *House) *transferActor {
	t := &transferActor{house: h, running: map[*catalog.Copy]*fill{}, feeds: map[*catalog.Copy]*task{}, tasks: map[*task]bool{}, moves: map[*move]bool{}, checks: map[*checking]bool{}}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// close stops every load at its next chunk and waits for the workers.
func (t *transferActor) close() {
	t.cancel()
	t.crew.callOff()
}

// lend gives a grant's segments to use, on the device's goroutine.
func (d *deviceActor) lend(grant uuid.UUID, use func(lent)) {
	d.tell(seam.SystemLane, func() {
		g, ok := d.core.Grant(grant)
		if !ok || g.Status != ledger.StatusActive {
			use(lent{fail: errEnded})
			return
		}
		use(lent{driver: d.driver, segments: d.handles(g.Blocks)})
	})
}

// inspect reads the headers of a model's files on a worker and tells the pool.
func (t *transferActor) inspect(cp *catalog.Copy, r catalog.LoadRequest) {
	t.tell(seam.SystemLane, func() {
		t.crew.join(func() {
			src, desc, err := t.describe(r.Path)
			p := t.house.pool
			p.tell(seam.SystemLane, func() { p.inspected(cp, &r, src, desc, err) })
		})
	})
}

// inspected is the outcome of looking at a model's files, on the pool's goroutine.
func (p *poolActor) inspected(cp *catalog.Copy, r *catalog.LoadRequest, src *source, desc catalog.Description, err *schemas.Error) {
	if !p.core.Inspected(cp, r, desc, err, p.house.now()) {
		if src != nil {
			src.model.Close()
		}
		p.unreserve(cp)
	}
	p.flush()
}

func (t *transferActor) describe(path string) (*source, catalog.Description, *schemas.Error) {
	if strings.HasPrefix(path, offeredPath) {
		return nil, catalog.Description{}, schemas.Errorf(schemas.CodeFileNotReadable,
			"%s: the model came as an open file, which the node no longer has: offer it again on the data socket, and give its file_claim", path).With("path", path)
	}
	m, err := weights.Inspect(t.ctx, path, weights.Options{Roots: t.house.cfg.Roots})
	if err != nil {
		return nil, catalog.Description{}, modelError(err)
	}
	src, d := describeModel(m, path)
	return src, d, nil
}

// describeModel lays an inspected model out.
func describeModel(m *weights.Model, path string) (*source, catalog.Description) {
	l := m.Layout(weights.LayoutOptions{})
	d := catalog.Description{Path: path, ContentID: m.ContentID, Bytes: m.TotalBytes, Source: &source{m, l}}
	if s := m.Stamp(path); s != nil {
		d.Stamp = s
	}
	for _, s := range l.Segments {
		d.Segments = append(d.Segments, s.Bytes)
	}
	for i, p := range l.Placed {
		tn := m.Tensors[i]
		d.Tensors = append(d.Tensors, schemas.Tensor{Name: tn.Name, DType: tn.DType, Shape: tn.Shape, Segment: p.Segment, Offset: p.Offset, SizeBytes: tn.Bytes})
	}
	return d.Source.(*source), d
}

// loadError is modelError for a load under way, whose memory a drain may have taken.
func (h *House) loadError(err error) *schemas.Error {
	h.suspect(err)
	if h.draining.Load() && (errors.Is(err, errEnded) || errors.Is(err, device.ErrDestroyed)) {
		return schemas.Errorf(schemas.CodeDraining, "the node is stopping: the memory of the load is released")
	}
	return modelError(err)
}

// modelError says on the wire what is wrong with a model or its files.
func modelError(err error) *schemas.Error {
	var format *weights.FormatError
	switch {
	case errors.As(err, &format):
		return schemas.Errorf(schemas.CodeInvalidModel, "%v", err).With("file", format.File).With("offset", format.Offset).With("reason", format.Reason)
	case errors.Is(err, weights.ErrInvalidModel):
		return schemas.Errorf(schemas.CodeInvalidModel, "%v", err)
	case errors.Is(err, weights.ErrNotReadable):
		return schemas.Errorf(schemas.CodeFileNotReadable, "%v", err)
	case errors.Is(err, device.ErrOutOfMemory):
		return schemas.Errorf(schemas.CodeOutOfMemory, "%v", err)
	case errors.Is(err, errStopped), errors.Is(err, context.Canceled):
		return schemas.Errorf(schemas.CodeCancelled, "%v", err)
	}
	return driverError(err, schemas.CodeInternalError)
}

// fill loads a model into a grant's segments, now or when one of the running loads ends.
func (t *transferActor) fill(cp *catalog.Copy, src any, l lent) {
	t.tell(seam.SystemLane, func() {
		f := &fill{copy: cp, source: src.(*source), lent: l}
		f.ctx, f.cancel = context.WithCancelCause(t.ctx)
		t.running[cp] = f
		t.waiting = append(t.waiting, f)
		t.next()
	})
}

func (t *transferActor) next() {
	for t.active < t.house.cfg.Loads && len(t.waiting) > 0 {
		f := t.waiting[0]
		t.waiting = t.waiting[1:]
		t.active++
		joined := t.crew.join(func() {
			err := t.load(f)
			t.tell(seam.SystemLane, func() { t.ended(f, err) })
		})
		if !joined {
			f.source.model.Close()
		}
	}
}

// load runs on a goroutine of its own; its workers are the ones that block.
func (t *transferActor) load(f *fill) error {
	defer f.source.model.Close()
	if f.lent.fail != nil {
		return f.lent.fail
	}
	t.house.cfg.Blocking(t.house.cfg.LoadWorkers)
	defer t.house.cfg.Blocking(-t.house.cfg.LoadWorkers)
	most := int64(0)
	if _, ok := f.lent.driver.(device.Bridge); ok {
		most = loadBytes // its own threads read, side by side: the more at a time the better
	}
	return weights.Load(f.ctx, f.source.model, f.source.layout, &sink{f.lent}, weights.LoadOptions{
		Workers:   t.house.cfg.LoadWorkers,
		ReadBytes: most,
		Progress: func(done int64) {
			p := t.house.pool
			p.tell(seam.QueryLane, func() { // progress may be dropped under load
				p.core.Progress(f.copy, min(done, f.copy.Model.Bytes), p.house.now())
				p.progressed(f.copy)
				p.flush()
			})
		},
	})
}

func (t *transferActor) ended(f *fill, err error) {
	t.active--
	delete(t.running, f.copy)
	f.cancel(nil)
	p := t.house.pool
	p.tell(seam.SystemLane, func() {
		var fail *schemas.Error
		if err != nil {
			fail = t.house.loadError(err)
		}
		p.core.Filled(f.copy, fail, p.house.now())
		p.flush()
	})
	t.next()
}

// stop ends a load at its next chunk.
func (t *transferActor) stop(cp *catalog.Copy) {
	t.tell(seam.SystemLane, func() {
		if k := t.feeds[cp]; k != nil {
			k.cancel(errStopped)
		}
		f, ok := t.running[cp]
		if !ok {
			return
		}
		f.cancel(errStopped)
		for i, w := range t.waiting {
			if w == f {
				t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
				t.active++ // as if it had run
				f.source.model.Close()
				t.ended(f, errStopped)
				return
			}
		}
	})
}

// sink puts a load's reads into segments.
type sink struct{ lent lent }

// niceness of the threads that copy weights: a load takes what the answers to commands
// leave over, and all of an idle machine.
const niceness = 10

// Fill implements weights.Sink.
func (s *sink) Fill(ctx context.Context, segment int, off int64, f *os.File, fileOff, n int64) error {
	runtime.LockOSThread()
	tid := unix.Gettid()
	old, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, tid, niceness)
	}
	done, fail := s.lent.driver.Fill(ctx, s.lent.segments[segment], off, f, fileOff, n)
	if err == nil && unix.Setpriority(unix.PRIO_PROCESS, tid, 20-old) == nil {
		runtime.UnlockOSThread() // only a thread that is as it was goes back
	}
	if fail == nil && done != n {
		return io.ErrUnexpectedEOF
	}
	return fail
}

package actors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights"
)

// load_model with verify: the bytes of a resident copy are compared with the file that they came
// from, all of them; with hashes, those of tensors with their sums. A GPU does not keep a process
// that maps weights from writing to them, and its memory may fail: on main memory the kernel keeps
// everybody.

// audit is what a load is to be compared with. It belongs to the pool, and while the comparison is
// under way to that.
type audit struct {
	verify bool // with the file
	// file is a second descriptor of an offered one, and name what it was called; nil where the
	// model has a path.
	file   *os.File
	name   string
	hashes []schemas.TensorHash
}

func newAudit(in *schemas.LoadModelRequest) audit {
	hashes, _ := schemas.TensorHashes(in.Hashes) // they were checked with the request
	return audit{verify: in.Verify, hashes: hashes}
}

func (a *audit) wanted() bool { return a.verify || len(a.hashes) > 0 }

// close lets go of a file that is not needed any more.
func (a *audit) close() {
	if a.file != nil {
		a.file.Close()
		a.file = nil
	}
}

// against says how a copy is not what it is to be compared with, nil where it is. It closes the
// audit.
func (a *audit) against(ctx context.Context, t *transferActor, m *catalog.Model, d *deviceActor, segments []device.Segment) *schemas.Error {
	defer a.close()
	if a.verify {
		if err := t.difference(ctx, a, m, d, segments); err != nil {
			return err
		}
	}
	return t.sums(ctx, a.hashes, m, d, segments)
}

// checking is a comparison of a grant's bytes under way.
type checking struct {
	grant  uuid.UUID
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// check compares a copy that was just loaded, or was there, for a command; then is called on the
// pool's goroutine, with the reason why it is not what it should be.
func (p *poolActor) check(a *modelCall, cp *catalog.Copy, then func(err *schemas.Error)) {
	t, d := p.house.transfer, p.house.byID[cp.Device]
	k := &checking{grant: cp.Grant}
	k.ctx, k.cancel = context.WithCancelCause(t.ctx)
	a.check = k
	m, with := *cp.Model, a.audit
	a.audit = audit{}
	ended := func(err *schemas.Error) {
		p.tell(seam.SystemLane, func() {
			a.check = nil
			k.cancel(nil)
			then(err)
		})
	}
	d.tell(seam.SystemLane, func() {
		g, err := d.core.Hold(k.grant, m.Tenant, ledger.HoldRead)
		if err != nil {
			with.close()
			ended(handleGone(m.Name, err))
			return
		}
		segments := d.handles(g.Blocks)
		d.flush()
		t.compare(k, &with, &m, d, segments, func(err *schemas.Error) {
			d.tell(seam.SystemLane, func() {
				d.core.Unhold(k.grant, ledger.HoldRead, d.house.now())
				d.flush()
			})
			ended(err)
		})
	})
}

// compare does it on goroutines of its own; end is called on one of them.
func (t *transferActor) compare(k *checking, a *audit, m *catalog.Model, d *deviceActor, segments []device.Segment, end func(err *schemas.Error)) {
	t.tell(seam.SystemLane, func() {
		if len(t.checks) >= t.house.cfg.Loads {
			a.close()
			end(schemas.Errorf(schemas.CodeBusy, "%d models are being verified, the most at a time", len(t.checks)).With("retry_after_ms", 1000))
			return
		}
		t.checks[k] = true
		joined := t.crew.join(func() {
			err := a.against(k.ctx, t, m, d, segments)
			t.tell(seam.SystemLane, func() { delete(t.checks, k) })
			end(err)
		})
		if !joined {
			a.close()
		}
	})
}

// difference says how a copy differs from its file, or why that cannot be said; nil if it does not.
func (t *transferActor) difference(ctx context.Context, a *audit, m *catalog.Model, d *deviceActor, segments []device.Segment) *schemas.Error {
	src, desc, fail := t.reopen(ctx, a, m)
	if fail != nil {
		return fail
	}
	defer src.model.Close()
	if desc.ContentID != m.ContentID || !slices.Equal(desc.Segments, m.Segments) {
		return schemas.Errorf(schemas.CodeModelConflict, "model %q cannot be verified: %s has another content than when it was loaded", m.Name, m.Path).With("path", m.Path)
	}
	workers := t.house.cfg.LoadWorkers
	t.house.cfg.Blocking(workers)
	defer t.house.cfg.Blocking(-workers)
	err := weights.Load(ctx, src.model, src.layout, &comparison{driver: d.driver, segments: segments}, weights.LoadOptions{Workers: workers})
	var found *differs
	switch {
	case err == nil:
		return nil
	case errors.As(err, &found):
		e := schemas.Errorf(schemas.CodeInvalidModel, "the bytes of model %q on %s are not those of its file any more: unload it with force and load it again; "+
			"a process that maps it may have written there, or the device's memory has failed", m.Name, d.id)
		t.house.log.Error("a model is not what was loaded", "model", m.Name, "device", d.id, "segment", found.segment, "offset", found.offset)
		return e.With("device_id", d.id).With("segment", found.segment).With("offset", found.offset).With("tensor", src.tensorAt(found.segment, found.offset))
	}
	t.house.suspect(err)
	var known *schemas.Error
	if errors.As(context.Cause(ctx), &known) {
		return known
	}
	return modelError(err)
}

// reopen looks at a model's file once more: the one that was offered with the command, or the one
// at its path.
func (t *transferActor) reopen(ctx context.Context, a *audit, m *catalog.Model) (*source, catalog.Description, *schemas.Error) {
	if a.file == nil {
		src, desc, err := t.describe(m.Path)
		if err != nil && strings.HasPrefix(m.Path, offeredPath) {
			err = schemas.Errorf(schemas.CodeFileNotReadable, "model %q cannot be compared with its file: it came as an open file, which the node no longer has; "+
				"offer it again on the data socket and give its file_claim, or give hashes of its tensors", m.Name).With("path", m.Path)
		}
		return src, desc, err
	}
	f := a.file
	a.file = nil // the reader's
	found, err := weights.InspectFile(ctx, f, a.name, weights.Options{})
	if err != nil {
		return nil, catalog.Description{}, modelError(err)
	}
	src, desc := describeModel(found, m.Path)
	return src, desc, nil
}

// tensorAt is the tensor that has a byte, "" where it is between two.
func (s *source) tensorAt(segment int, offset int64) string {
	for i, p := range s.layout.Placed {
		if t := s.model.Tensors[i]; p.Segment == segment && p.Offset <= offset && offset < p.Offset+t.Bytes {
			return t.Name
		}
	}
	return ""
}

// comparison is a sink that compares what it is to be filled with with what is there.
type comparison struct {
	driver   device.Driver
	segments []device.Segment
	buffers  sync.Pool // of *[2][]byte
}

// differs is a byte that is not the file's.
type differs struct {
	segment int
	offset  int64
}

func (e *differs) Error() string {
	return fmt.Sprintf("byte %d of segment %d is not the file's", e.offset, e.segment)
}

// Fill implements weights.Sink.
func (c *comparison) Fill(ctx context.Context, segment int, off int64, f *os.File, fileOff, n int64) error {
	b, _ := c.buffers.Get().(*[2][]byte)
	if b == nil {
		b = &[2][]byte{make([]byte, stageBytes), make([]byte, stageBytes)}
	}
	defer c.buffers.Put(b)
	for at := int64(0); at < n; at += stageBytes {
		if err := ctx.Err(); err != nil {
			return err
		}
		want, got := b[0][:min(stageBytes, n-at)], b[1][:min(stageBytes, n-at)]
		if k, err := f.ReadAt(want, fileOff+at); k < len(want) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := c.driver.Read(c.segments[segment], off+at, got); err != nil {
			return err
		}
		if !bytes.Equal(want, got) {
			for i := range want {
				if want[i] != got[i] {
					return &differs{segment, off + at + int64(i)}
				}
			}
		}
	}
	return nil
}

package weights

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Sink takes file ranges into the segments of a Layout, by reading into memory that
// is already populated: never through a mapping of the file. Fill is called from
// several goroutines at once, always on disjoint ranges. A file that ends early is
// io.ErrUnexpectedEOF.
type Sink interface {
	Fill(ctx context.Context, segment int, off int64, f *os.File, fileOff, n int64) error
}

// LoadOptions tune one Load. Zero means the default.
type LoadOptions struct {
	// Workers that read at once. Default: the processors, at most 8.
	Workers int
	// ReadBytes joins reads that continue each other, up to so many bytes: for a sink that
	// reads a long range faster than parts of it. Default: none are joined.
	ReadBytes int64
	// Progress is told how many of Layout.ReadBytes are in, after every chunk: one
	// call at a time, always growing, from the workers' goroutines, which wait for it.
	Progress func(done int64)
}

// Load fills the segments of a layout of this model through the sink. It blocks
// until no worker touches the sink any more. The order of the reads is the files',
// roughly. On the first failure, or when ctx ends, the other workers stop after the
// chunk they are at.
//
// Afterwards every file is compared with what Inspect saw. One that was written,
// truncated, replaced or removed meanwhile is a *ChangedError, and what the
// segments hold then is not the model. Errors: ErrInvalidModel, ErrNotReadable (the
// disk failed), the sink's own wrapped, or ctx's cause. The model must not be closed meanwhile; several Loads may run at once.
func Load(ctx context.Context, m *Model, l *Layout, s Sink, o LoadOptions) error {
	if err := l.fits(m); err != nil {
		return err
	}
	if o.Workers <= 0 {
		o.Workers = min(runtime.NumCPU(), 8)
	}
	for i := range m.Files {
		// Only a hint: a deeper read-ahead. A file system that knows none is fine.
		// WILLNEED for each chunk was measured to be slower than no hint at all.
		_ = control(m.Files[i].file, func(fd int) error {
			return unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL)
		})
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := pipeline{ctx: inner, cancel: cancel, model: m, layout: l, sink: s, most: o.ReadBytes, progress: o.Progress}
	var workers sync.WaitGroup
	for range min(o.Workers, len(l.Reads)) {
		workers.Go(p.work)
	}
	workers.Wait()
	if err := context.Cause(inner); err != nil {
		return p.explain(err)
	}
	return m.unchanged()
}

// fits refuses a layout of another model before anything is read.
func (l *Layout) fits(m *Model) error {
	for _, r := range l.Reads {
		if r.File >= len(m.Files) || r.FileOffset+r.Bytes > m.Files[r.File].Bytes || m.Files[r.File].file == nil {
			return errors.New("weights: the layout is not of this model, or the model has no open files")
		}
	}
	return nil
}

// unchanged compares all files with what Inspect saw.
func (m *Model) unchanged() error {
	for i := range m.Files {
		if err := m.Files[i].unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// pipeline is one running Load.
type pipeline struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	model    *Model
	layout   *Layout
	sink     Sink
	progress func(int64)
	most     int64 // of reads that are joined

	mu   sync.Mutex
	next int   // of the layout's reads
	done int64 // bytes
}

// work takes chunk after chunk until none is left or the load has ended.
func (p *pipeline) work() {
	for {
		r, ok := p.take()
		if !ok {
			return
		}
		file := &p.model.Files[r.File]
		if err := p.sink.Fill(p.ctx, r.Segment, r.Offset, file.file, r.FileOffset, r.Bytes); err != nil {
			p.cancel(&fillError{file, r, err}) // only the first counts
			return
		}
		p.report(r.Bytes)
	}
}

func (p *pipeline) take() (Read, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || p.next == len(p.layout.Reads) {
		return Read{}, false
	}
	r := p.layout.Reads[p.next]
	for p.next++; p.next < len(p.layout.Reads); p.next++ {
		next := p.layout.Reads[p.next]
		if next.File != r.File || next.Segment != r.Segment || next.FileOffset != r.FileOffset+r.Bytes || next.Offset != r.Offset+r.Bytes ||
			r.Bytes+next.Bytes > p.most {
			break
		}
		r.Bytes += next.Bytes
	}
	return r, true
}

func (p *pipeline) report(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.progress != nil {
		p.progress(p.done)
	}
}

// explain turns what ended the load into what the caller should hear: the context's
// error, a file that changed, or the sink's failure.
func (p *pipeline) explain(err error) error {
	var fe *fillError
	if !errors.As(err, &fe) {
		return err
	}
	if cerr := fe.file.unchanged(); errors.Is(cerr, ErrInvalidModel) {
		return cerr
	}
	if errors.Is(fe.err, io.ErrUnexpectedEOF) {
		return &ChangedError{File: fe.file.Path, What: "ends early"}
	}
	var pe *fs.PathError
	if errors.As(fe.err, &pe) || errors.Is(fe.err, unix.EIO) || errors.Is(fe.err, unix.ESTALE) {
		return &ReadError{File: fe.file.Path, Err: fe}
	}
	return fe
}

// fillError is a failure of the sink, with the chunk that it happened at.
type fillError struct {
	file *File
	read Read
	err  error
}

func (e *fillError) Error() string {
	return fmt.Sprintf("load %s bytes %d+%d into segment %d at %d: %v",
		e.file.Path, e.read.FileOffset, e.read.Bytes, e.read.Segment, e.read.Offset, e.err)
}

func (e *fillError) Unwrap() error { return e.err }

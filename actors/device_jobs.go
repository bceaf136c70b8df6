package actors

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// dispatch gives one job of the core to a worker. The driver's segments are looked up
// here, on the actor, so that a worker never sees the actor's state.
func (d *deviceActor) dispatch(j *ledger.Job) {
	job := *j // the core reuses its effects
	switch job.Kind {
	case ledger.JobCreate, ledger.JobWarm:
		d.disturb()
		d.making.begin()
		d.work.copies.put(func() { d.create(job) })
	case ledger.JobDestroy:
		d.disturb()
		segs := d.segments(job.Ranges)
		for _, r := range job.Ranges {
			delete(d.live, r.Segment)
		}
		d.work.reaper.put(func() { d.destroy(job, segs) })
	case ledger.JobClear, ledger.JobScrub:
		segs := d.segments(job.Ranges)
		d.work.copies.put(func() { d.clear(job, segs) })
	case ledger.JobProve:
		segs := d.segments(job.Ranges)
		d.work.control.put(func() { d.prove(job, segs) })
	case ledger.JobExport:
		segs := d.segments(job.Ranges)
		grant := *job.Info
		job.Info = &grant
		d.work.control.put(func() { d.export(job, segs) })
	case ledger.JobSeal:
		segs := d.segments(job.Ranges)
		d.work.copies.put(func() { d.seal(job, segs) })
	case ledger.JobHolders:
		segs := d.segments(job.Ranges)
		d.work.reaper.put(func() { d.findHolders(job, segs) })
	case ledger.JobVacate:
		d.vacate(job)
	default:
		panic(fmt.Sprintf("actors: a job of kind %d", job.Kind))
	}
}

// disturb notes that the driver's own figures are about to move.
func (d *deviceActor) disturb() {
	d.sampling.epoch++
	d.sampling.busy++
}

func (d *deviceActor) segments(ranges []ledger.Range) []device.Segment {
	out := make([]device.Segment, len(ranges))
	for i, r := range ranges {
		s, ok := d.live[r.Segment]
		if !ok {
			panic(fmt.Sprintf("actors: segment %d of %s is not here", r.Segment, d.id))
		}
		out[i] = s
	}
	return out
}

// longBytes is how much main memory takes a worker long to make or clear: a millisecond or more.
// Of a GPU's it is longBatch. shortBytes is how much takes it longer than a command.
const (
	longBytes  = 8 << 20
	shortBytes = 256 << 10
)

// blocks tells the process that a worker will sit in long system calls, until the function
// that it returns is called.
func (d *deviceActor) blocks(ranges []ledger.Range) func() {
	var n int64
	for _, r := range ranges {
		n += max(r.Bytes, r.Length)
	}
	long := int64(longBytes)
	if d.kind != schemas.DeviceTypeRAM {
		long = longBatch
	}
	if n < long || d.kind != schemas.DeviceTypeRAM && d.info.Simulated {
		if n >= shortBytes {
			d.house.cfg.Blocking(0)
		}
		return func() {} // it makes memory in one short call
	}
	d.house.cfg.Blocking(1)
	return func() { d.house.cfg.Blocking(-1) }
}

// blocksShortly tells the process that a worker will sit in calls of a GPU's driver: while one
// does, others must have where to run.
func (d *deviceActor) blocksShortly() {
	if d.kind != schemas.DeviceTypeRAM {
		d.house.cfg.Blocking(0)
	}
}

func (d *deviceActor) destroy(job ledger.Job, segs []device.Segment) {
	// The vault goes first: a new one is given what the keeper knows, and must not meet a
	// descriptor that is closed.
	if err := d.house.cfg.Keeper.Drop(d.vaultIDs(job.Ranges)...); err != nil {
		d.house.log.Error("the vault did not let go", "device", d.id, "error", err)
	}
	gone, owed := d.destroyAll(job, segs)
	d.tell(seam.SystemLane, func() {
		d.sampling.busy--
		if len(owed) > 0 {
			d.core.Owed(job.Grant, owings(owed), d.house.now())
		}
		if len(gone) > 0 {
			d.core.Destroyed(job.Grant, gone, d.house.now())
		}
		d.flush()
		d.awaitAll(job.Grant, owed)
	})
}

// destroyAll destroys the segments of a job, and says of which the bytes are back. On a GPU they
// are destroyed side by side: one that hangs holds up no other. Main memory goes one by one, since
// the kernel is busy with each.
func (d *deviceActor) destroyAll(job ledger.Job, segs []device.Segment) (gone []ledger.Range, owed []owing) {
	d.blocksShortly()
	var next atomic.Int64
	var mu sync.Mutex
	work := func() {
		for i := next.Add(1) - 1; int(i) < len(segs); i = next.Add(1) - 1 {
			err := d.driver.Destroy(segs[i])
			if err != nil {
				d.house.log.Error("a segment could not be destroyed", "device", d.id, "segment", job.Ranges[i].Segment, "error", err)
			}
			mu.Lock()
			if o := (*device.OwedError)(nil); errors.As(err, &o) {
				owed = append(owed, owing{job.Ranges[i], o})
			} else {
				gone = append(gone, job.Ranges[i])
			}
			mu.Unlock()
		}
	}
	var group sync.WaitGroup
	for range min(reapers(d.kind), len(segs)) - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
	return gone, owed
}

func (d *deviceActor) clear(job ledger.Job, segs []device.Segment) {
	defer d.blocks(job.Ranges)()
	fail := d.clearAll(job.Ranges, segs)
	d.tell(seam.SystemLane, func() {
		if errors.Is(fail, device.ErrLost) {
			d.lose(fail)
		}
		if job.Kind == ledger.JobScrub {
			d.core.Scrubbed(job.Ranges[0].Segment, fail, d.house.now())
		} else {
			d.core.Prepared(job.Ticket, job.Kind, fail, false, d.house.now())
		}
		d.flush()
	})
}

// clearAll sets ranges of segments to zero.
func (d *deviceActor) clearAll(ranges []ledger.Range, segs []device.Segment) error {
	if b, ok := d.driver.(device.Batcher); ok {
		list := make([]device.Range, len(segs))
		for i, s := range segs {
			list[i] = device.Range{Segment: s, Off: ranges[i].Offset, Bytes: ranges[i].Length}
		}
		return b.ClearAll(context.Background(), list, 0, func(int64) {})
	}
	for i, s := range segs {
		if err := d.driver.Clear(s, ranges[i].Offset, ranges[i].Length, 0); err != nil {
			return err
		}
	}
	return nil
}

func (d *deviceActor) prove(job ledger.Job, segs []device.Segment) {
	clear := true
	for _, s := range segs {
		ok, err := d.driver.Released(s)
		if err != nil {
			d.house.log.Error("a release could not be proved", "device", d.id, "error", err)
		}
		if clear = ok && err == nil; !clear {
			break
		}
	}
	d.tell(seam.SystemLane, func() {
		d.core.Proved(job.Grant, clear, d.house.now())
		d.flush()
	})
}

// export makes descriptors for one session and hands them to its connection, which says
// when it has sent and closed them.
func (d *deviceActor) export(job ledger.Job, segs []device.Segment) {
	mode := device.ReadOnly
	if job.Mode == ledger.ReadWrite {
		mode = device.ReadWrite
	}
	files := make([]*os.File, 0, len(segs))
	var fail error
	for _, s := range segs {
		f, err := d.driver.Export(s, mode)
		if err != nil {
			fail = d.suspect(err)
			closeAll(files)
			files = nil
			break
		}
		files = append(files, f)
	}
	sent := func(failed bool) {
		d.tell(seam.SystemLane, func() {
			d.core.Exported(job.Grant, job.Session, failed, d.house.now())
			d.flush()
			d.parted()
		})
	}
	job.Ref.(*mapping).exported(d, job, files, fail, sent)
}

// errEnded is why a load fails whose grant was released under it, by a drain perhaps.
var errEnded = errors.New("the grant ended meanwhile")

func (d *deviceActor) seal(job ledger.Job, segs []device.Segment) {
	failed := make([]error, len(segs))
	var group sync.WaitGroup
	for i, s := range segs { // side by side: what nobody has written is set to zero first
		group.Go(func() { failed[i] = d.suspect(d.driver.Seal(s)) })
	}
	group.Wait()
	fail := errors.Join(failed...)
	d.tell(seam.SystemLane, func() {
		if fail == nil && !d.core.SealDone(job.Grant, d.house.now()) {
			fail = errEnded
		}
		d.house.pool.sealed(job.Grant, fail)
		d.flush()
	})
}

// holdersLimit bounds how many segments of a grant are looked for: who maps one of a
// grant maps all.
const holdersLimit = 2

// findHolders tells the core who holds a grant. Where a search fails anybody may, whoever else
// was found: the bytes stay counted, and the core has them looked for again. Of a driver that
// cannot prove a release those are told that have a descriptor: it also names who merely uses
// the device, and the sessions that map the grant are known.
func (d *deviceActor) findHolders(job ledger.Job, segs []device.Segment) {
	d.blocksShortly()
	var out []ledger.Holder
	var fail error
	for _, s := range segs[:min(len(segs), holdersLimit)] {
		hs, err := d.driver.Holders(s, d.house.cfg.KeeperPID())
		if errors.Is(err, device.ErrUnsupported) && !d.info.ProvesRelease {
			err = nil // the sessions alone are known, and will be
		}
		if fail = err; fail != nil {
			d.house.log.Warn("who holds a grant's memory could not be found: it is kept, and looked again", "device", d.id, "allocation", job.Grant, "error", err)
			break
		}
		for _, h := range hs {
			if d.info.ProvesRelease || h.Open {
				out = append(out, ledger.Holder{PID: int32(h.PID), Bytes: h.MappedBytes})
			}
		}
	}
	d.tell(seam.SystemLane, func() {
		if fail != nil {
			d.core.HoldersUnknown(job.Grant, d.house.now())
		} else {
			d.core.HoldersFound(job.Grant, out, d.house.now())
		}
		d.flush()
	})
}

// handles looks up a grant's segments for a load.
func (d *deviceActor) handles(blocks []heap.Block) []device.Segment {
	out := make([]device.Segment, len(blocks))
	for i, b := range blocks {
		out[i] = d.live[b.Segment]
	}
	return out
}

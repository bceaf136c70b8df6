package actors

import (
	"context"
	"errors"
	"sync"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/vault"
)

// creation is a job's segments: made one after the other on a worker, and put into the vault on
// another goroutine meanwhile.
type creation struct {
	job  ledger.Job
	segs []device.Segment

	mu   sync.Mutex
	open int // puts under way, and the worker
	fail error
}

func (c *creation) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
}

// end notes how a part ended. The last one to end is told so, and how all of it did.
func (c *creation) end(err error) (last bool, fail error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = errors.Join(c.fail, err)
	c.open--
	return c.open == 0, c.fail
}

// create makes the segments of a job, all or none. Runs on a worker.
func (d *deviceActor) create(job ledger.Job) {
	defer d.blocks(job.Ranges)()
	c := &creation{job: job, open: 1}
	fail := d.makeAll(c)
	d.making.end()
	d.work.vault.put(d.keep) // what has gathered while this was under way
	d.endCreation(c, fail)
}

// makeAll makes all segments of a creation. Each goes to the vault as soon as it has a descriptor.
func (d *deviceActor) makeAll(c *creation) error {
	for _, r := range c.job.Ranges {
		err := d.driverCreate(r.Bytes, device.CreateOptions{Weights: c.job.Weights, Unclear: c.job.Unclear, Label: "isobar " + d.id}, func(s device.Segment) {
			c.segs = append(c.segs, s)
			c.begin()
			d.making.add(made{c, vault.Entry{ID: vaultID(d.tag, uint64(r.Segment)), Label: d.id, File: s.File()}})
			d.work.vault.put(d.keep)
		})
		if err != nil {
			return err
		}
		if c.job.Unclear && r.Length > 0 {
			if err := d.driver.Clear(c.segs[len(c.segs)-1], r.Offset, r.Length, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// driverCreate makes a segment, and calls there once it has a descriptor.
func (d *deviceActor) driverCreate(bytes int64, o device.CreateOptions, there func(s device.Segment)) error {
	ctx := context.Background()
	b, ok := d.driver.(device.Stager)
	if !ok {
		s, err := d.driver.Create(ctx, bytes, o)
		if err == nil {
			there(s)
		}
		return err
	}
	s, err := b.Begin(ctx, bytes, o)
	if err != nil {
		return err
	}
	there(s)
	if o.Weights {
		return nil // finished as they are filled: the first while the next are made
	}
	return b.Finish(ctx, s)
}

// endCreation tells the core of a creation once all of its parts have ended.
func (d *deviceActor) endCreation(c *creation, err error) {
	if last, fail := c.end(err); last {
		d.created(c, fail)
	}
}

// made is a segment on its way into the vault.
type made struct {
	of    *creation
	entry vault.Entry
}

// making gathers what goes into the vault with the next message.
type making struct {
	mu       sync.Mutex
	list     []made
	underWay int // jobs that workers have yet to finish
}

// gathered bounds how much waits for more; then it goes.
const gathered = 32

func (q *making) begin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.underWay++
}

func (q *making) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.underWay--
}

func (q *making) add(m made) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, m)
}

// take returns what should go now. Memory for the pool, for which nobody waits, gathers
// while more of it is being made.
func (q *making) take() []made {
	q.mu.Lock()
	defer q.mu.Unlock()
	waited := q.underWay == 0 || len(q.list) >= gathered
	for _, m := range q.list {
		waited = waited || m.of.job.Kind == ledger.JobCreate
	}
	if !waited {
		return nil
	}
	list := q.list
	q.list = nil
	return list
}

// keep puts everything that was made meanwhile into the vault. Runs on the vault worker.
func (d *deviceActor) keep() {
	list := d.making.take()
	if len(list) == 0 {
		return // an earlier turn took it along, or it gathers
	}
	entries := make([]vault.Entry, len(list))
	for i, m := range list {
		entries[i] = m.entry
	}
	err := d.house.cfg.Keeper.Put(entries...)
	for _, m := range list {
		d.endCreation(m.of, err)
	}
}

// created tells the core of a job's segments; what a failed job has made is destroyed.
func (d *deviceActor) created(c *creation, fail error) {
	job, segs := c.job, c.segs
	var owed []owing
	if fail != nil {
		d.unput(job.Ranges[:len(segs)]) // before their descriptors are closed
		for i, s := range segs {
			err := d.driver.Destroy(s)
			if err != nil {
				d.house.log.Error("a segment could not be taken back", "device", d.id, "error", err)
			}
			if o := (*device.OwedError)(nil); errors.As(err, &o) {
				owed = append(owed, owing{job.Ranges[i], o})
			}
		}
		segs = nil
	}
	exhausted := errors.Is(fail, device.ErrOutOfMemory)
	var sample device.Sample
	var sampleErr error
	if exhausted {
		sample, sampleErr = d.driver.Sample()
	}
	d.tell(seam.SystemLane, func() {
		d.sampling.busy--
		now := d.house.now()
		if errors.Is(fail, device.ErrLost) {
			d.lose(fail)
		}
		if len(owed) > 0 {
			d.core.Owed(uuid.UUID{}, owings(owed), now)
			d.awaitAll(uuid.UUID{}, owed)
		}
		if exhausted && sampleErr == nil {
			d.core.SetOutside(sample.OutsideBytes(), sample.PhysicalBytes-d.cfg.Reserve, now)
			d.flush()
		}
		for i, s := range segs {
			d.live[job.Ranges[i].Segment] = s
		}
		if job.Kind == ledger.JobWarm {
			d.core.Warmed(job.Ranges[0], fail, now)
		} else {
			d.core.Prepared(job.Ticket, job.Kind, fail, exhausted, now)
		}
		d.flush()
	})
}

// unput drops what of a failed job is, or may be, in the vault.
func (d *deviceActor) unput(ranges []ledger.Range) {
	if len(ranges) == 0 {
		return
	}
	if err := d.house.cfg.Keeper.Drop(d.vaultIDs(ranges)...); err != nil {
		d.house.log.Error("the vault may hold memory that nobody was granted", "device", d.id, "error", err)
	}
}

// vaultIDs are the names of segments in the vault.
func (d *deviceActor) vaultIDs(ranges []ledger.Range) []uint64 {
	ids := make([]uint64, len(ranges))
	for i, r := range ranges {
		ids[i] = vaultID(d.tag, uint64(r.Segment))
	}
	return ids
}

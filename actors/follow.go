package actors

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/proctree"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
)

// lookPeriod is the least between two looks at what process trees use, and lookShare how
// much longer than the look itself that must be: walking the pages of large processes
// takes tens of milliseconds.
const (
	lookPeriod = time.Second
	lookShare  = 20
)

// follows are the reservations of one device that follow a process. They belong to the
// device's goroutine; the trees to its control goroutine.
type follows struct {
	by     []*follow // oldest first
	due    clock.Instant
	failed bool // the last look; said once
}

// follow is one reservation, or the request for one, and the process that it follows.
type follow struct {
	process ledger.Process
	tree    *proctree.Tree
	grant   uuid.UUID // once granted
	ticket  ledger.Ticket
	pidfd   *os.File
	stop    func()
	over    bool
}

// follow begins to watch the process of a reservation that is asked for.
func (d *deviceActor) follow(pid int) (*follow, *schemas.Error) {
	pidfd, p, err := d.house.cfg.Process(pid)
	if errors.Is(err, os.ErrProcessDone) {
		return nil, schemas.Errorf(schemas.CodeInvalidRequest, "no process %d runs on this host: give the pid as the node's host sees it", pid).With("field", "pid")
	}
	if err != nil {
		return nil, schemas.Errorf(schemas.CodeInvalidRequest, "process %d cannot be followed: %v", pid, err).With("field", "pid")
	}
	f := &follow{process: ledger.Process{PID: int32(p.PID), Start: p.Start}, tree: proctree.New(p), pidfd: pidfd}
	if err := d.watch(f); err != nil {
		pidfd.Close()
		return nil, schemas.Errorf(schemas.CodeBusy, "process %d cannot be watched: %v", pid, err).With("retry_after_ms", 1000)
	}
	return f, nil
}

func (d *deviceActor) watch(f *follow) (err error) {
	f.stop, err = d.house.cfg.Watch(f.pidfd, func() { d.tell(seam.SystemLane, func() { d.processEnded(f) }) })
	return err
}

// resumeFollows watches the processes of restored reservations again.
func (d *deviceActor) resumeFollows() {
	var ended []*follow
	d.core.Grants(func(g *ledger.Grant) {
		if g.Follows.PID == 0 {
			return
		}
		f := &follow{process: g.Follows, grant: g.ID, tree: proctree.New(proctree.Process{PID: int(g.Follows.PID), Start: g.Follows.Start}), stop: func() {}}
		d.follows.by = append(d.follows.by, f)
		var err error
		if f.pidfd, err = d.house.cfg.Find(int(g.Follows.PID), g.Follows.Start); err == nil {
			err = d.watch(f)
		}
		if err != nil {
			ended = append(ended, f)
		}
	})
	for _, f := range ended {
		d.processEnded(f)
	}
}

// processEnded is the exit of a followed process: its reservation ends, or is not made.
func (d *deviceActor) processEnded(f *follow) {
	if f.over {
		return
	}
	if f.grant == (uuid.UUID{}) {
		d.core.Cancel(f.ticket, schemas.Errorf(schemas.CodeCancelled, "process %d, which the reservation was to follow, has ended", f.process.PID), d.house.now())
		d.flush()
		return
	}
	g, ok := d.core.Grant(f.grant)
	if !ok {
		return
	}
	d.core.Release(ledger.ReleaseRequest{Grant: f.grant, Tenant: g.Owner.Tenant, Force: true, Why: ledger.WhyProcess}, d.house.now())
	d.flush()
}

// followed ties a reservation that was granted to its process.
func (d *deviceActor) followed(f *follow, id uuid.UUID) {
	f.grant = id
	d.follows.by = append(d.follows.by, f)
	d.lookSoon()
}

// unfollow ends the watch of a request that was refused or a reservation that has ended.
func (d *deviceActor) unfollow(f *follow) {
	if f.over {
		return
	}
	f.over = true
	f.stop()
	if f.pidfd != nil {
		f.pidfd.Close()
	}
	if i := slices.Index(d.follows.by, f); i >= 0 {
		d.follows.by = slices.Delete(d.follows.by, i, i+1)
		d.lookSoon()
	}
}

// endFollows ends the watch of the reservations that ended in the core's last call.
func (d *deviceActor) endFollows(events []ledger.Event) {
	for _, e := range events {
		if e.Kind != ledger.EventDeallocated && e.Kind != ledger.EventExpired {
			continue
		}
		for _, f := range d.follows.by {
			if f.grant == e.Grant {
				d.unfollow(f)
				break
			}
		}
	}
}

// lookSoon brings the next sample forward: what a tree uses has just become a
// reservation's, or ceased to be.
func (d *deviceActor) lookSoon() {
	d.follows.due = d.house.cfg.Clock.Now()
	d.sampleSoon()
}

// sampleSoon brings the next sample forward, unless one is being taken.
func (d *deviceActor) sampleSoon() {
	if t := d.sampling.timer; t != nil && t.Stop() {
		d.sampling.timer = d.house.cfg.Clock.AfterFunc(0, func() { d.tell(seam.SystemLane, d.sample) })
	}
}

// look is what trees were found to use; nil where it was not looked.
type look struct {
	uses []ledger.Use
	took time.Duration
	err  error
}

// looker prepares a look at the trees for the control goroutine, or nil if none is due.
func (d *deviceActor) looker() func() *look {
	clk := d.house.cfg.Clock
	user, ok := d.driver.(device.ProcessUser)
	if !ok || len(d.follows.by) == 0 || clk.Now() < d.follows.due {
		return nil
	}
	all := slices.Clone(d.follows.by)
	return func() *look {
		begun := clk.Now()
		l := &look{}
		l.uses, l.err = lookAt(all, d.house.cfg.Processes, user)
		l.took = clk.Now().Sub(begun)
		return l
	}
}

// lookAt asks the driver what each tree uses. A process in several trees, because one
// reservation was made inside another, counts for the youngest.
func lookAt(all []*follow, processes func() (proctree.Table, error), user device.ProcessUser) ([]ledger.Use, error) {
	table, err := processes()
	if err != nil {
		return nil, err
	}
	taken := map[int]bool{}
	uses := make([]ledger.Use, 0, len(all))
	for _, f := range slices.Backward(all) {
		f.tree.Update(table)
		var pids []int
		for _, pid := range f.tree.PIDs() {
			if !taken[pid] {
				taken[pid] = true
				pids = append(pids, pid)
			}
		}
		n, err := user.UsedBy(pids)
		if err != nil {
			return nil, err
		}
		uses = append(uses, ledger.Use{Grant: f.grant, Bytes: n})
	}
	return uses, nil
}

// looked takes what a look found, together with its sample.
func (d *deviceActor) looked(l *look) {
	if l == nil {
		return
	}
	d.follows.due = d.house.cfg.Clock.Now().Add(max(lookPeriod, lookShare*l.took))
	if l.err != nil {
		if !d.follows.failed {
			d.house.log.Warn("what process trees use cannot be read: their reservations count what was last known", "device", d.id, "error", l.err)
		}
		d.follows.failed = true
		return
	}
	d.follows.failed = false
	d.core.Absorb(l.uses)
}

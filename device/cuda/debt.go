//go:build linux

package cuda

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/cuda/internal/api"
)

// debts are segments that were destroyed and whose bytes are not back. Whose fault that is shows
// in NVML's charge: while we hold memory it is ours, and what others still map once we have let
// go is theirs. The bytes stay among the live ones, and count as ours, until charges say that
// they are back. Who of several processes has them is told as well as charges allow; what the
// driver has in use in all does not depend on it.
type debts struct {
	mu   sync.Mutex
	list []*debt       // oldest first
	last map[int]int64 // the charges of the latest look
	// excess is what we were charged with, at the latest look without memory that the driver
	// keeps, beside our live segments: contexts and the like. known: there was one.
	excess       int64
	known        bool
	begun, ended uint64 // givings-back
	next         clock.Instant
	others       []device.ProcessUse
}

// debt is one of them.
type debt struct {
	s   *Segment
	pid int // who is charged; 0: the driver has failed to take it
	// unmap is true while it is to be tried again, at the time of due, after a pause that
	// grows.
	unmap  bool
	trying bool
	due    clock.Instant
	pause  time.Duration
}

// How often processes are looked at where nobody owes anything, and the pauses between attempts
// to unmap what the driver would not.
const (
	chargeEvery = time.Second
	retryFirst  = time.Second
	retryLast   = time.Minute
)

// standing is how things were before memory was given back: what was in use, and what processes
// were charged with when they were looked at last, of which how much was debts.
type standing struct {
	used            int64
	charges, pinned map[int]int64
}

// stand notes it; nil where NVML does not say.
func (d *Driver) stand() *standing {
	if d.watch.nvml == nil {
		return nil
	}
	q := &d.debts
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last == nil {
		list, err := d.processes()
		if err != nil {
			return nil
		}
		q.last = charges(list)
	}
	_, used, err := d.figures()
	if err != nil {
		return nil
	}
	return &standing{used, maps.Clone(q.last), q.pinned()}
}

func charges(list []api.Process) map[int]int64 {
	m := make(map[int]int64, len(list))
	for _, p := range list {
		m[p.PID] = max(0, p.Bytes)
	}
	return m
}

// pinned sums the debts of processes.
func (q *debts) pinned() map[int]int64 {
	m := map[int]int64{}
	for _, b := range q.list {
		if b.pid != 0 {
			m[b.pid] += b.s.bytes
		}
	}
	return m
}

// pins finds who still maps a segment that was just given back: a process that is charged with
// all of it, now that we are not. That is a debt then.
func (d *Driver) pins(s *Segment, before *standing) *device.OwedError {
	if before == nil {
		return nil
	}
	if _, used, err := d.figures(); err == nil && before.used-used >= s.bytes {
		return nil // as nearly always; the list of processes costs much more
	}
	q := &d.debts
	q.mu.Lock()
	defer q.mu.Unlock()
	list, err := d.processes()
	if err != nil {
		return nil // it counts as use outside from the next sample on
	}
	now, pinned := charges(list), q.pinned()
	who, most := 0, int64(0)
	for pid, bytes := range now {
		rise := bytes - before.charges[pid] - (pinned[pid] - before.pinned[pid])
		if pid != os.Getpid() && rise >= s.bytes && rise > most {
			who, most = pid, rise
		}
	}
	if who == 0 {
		return nil
	}
	q.list = append(q.list, &debt{s: s, pid: who})
	q.last[who] += s.bytes
	h := device.Holder{PID: who, Command: d.command(who), MappedBytes: s.bytes}
	return &device.OwedError{Bytes: s.bytes, Holders: []device.Holder{h}, Back: s.back,
		Why: fmt.Sprintf("process %d (%s) still maps them after their release", who, h.Command)}
}

// keeps notes memory that the driver did not take back. Where it would not unmap it, that is
// tried again: the range is still ours. A handle is let go of once only.
func (d *Driver) keeps(s *Segment, err error) *device.OwedError {
	q := &d.debts
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, &debt{s: s, unmap: !s.unmapped, pause: retryFirst, due: d.c.Clock.Now().Add(retryFirst)})
	d.stays(s, err)
	return &device.OwedError{Bytes: s.bytes, Why: fmt.Sprintf("the driver did not take them: %v", err), Back: s.back}
}

// collect sees which debts are paid, and who else uses the GPU. It runs under control,
// so that nothing is being made.
func (d *Driver) collect(now clock.Instant) []device.ProcessUse {
	q := &d.debts
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 && now < q.next {
		return q.others
	}
	q.next = now.Add(chargeEvery)
	quiet, begun := q.begun == q.ended, q.begun
	list, err := d.processes()
	if err == nil {
		q.relieve(d, charges(list))
		q.others = d.name(d.uses(list))
	} else {
		q.others = nil
	}
	excess, ok := d.excess(list, err == nil)
	if !ok || !quiet || q.begun != begun {
		d.again(now)
		return q.others
	}
	failed := false
	for _, b := range slices.Clone(q.list) {
		if b.pid != 0 {
			continue
		}
		if q.known && !b.trying && q.excess-excess >= b.s.bytes {
			q.excess -= b.s.bytes
			q.paid(d, b)
			continue
		}
		failed = true
	}
	if !failed || !q.known {
		q.excess, q.known = excess, true
	}
	d.again(now)
	return q.others
}

// relieve takes the charges of now: what a process is no longer charged with is back, unless
// another is charged with it instead.
func (q *debts) relieve(d *Driver, now map[int]int64) {
	for pid := range q.pinned() {
		for _, b := range q.fallen(pid, now[pid]) {
			if heir := q.heir(pid, now, b.s.bytes); heir != 0 {
				b.pid = heir
				q.last[heir] += b.s.bytes
				continue
			}
			q.paid(d, b)
		}
	}
	q.last = now
}

// fallen are a process's debts that it is charged with no more. A charge rises and falls by the
// process's own memory as well: debts are what it has fallen by if that is just so much, and what
// it is too low for in any case. So a process that lets go of our memory and of its own between
// two looks may be thought to have ours until it ends; the other error would be to call bytes
// released that are not.
func (q *debts) fallen(pid int, now int64) []*debt {
	var mine []*debt
	owed := int64(0)
	for _, b := range q.list {
		if b.pid == pid {
			mine = append(mine, b)
			owed += b.s.bytes
		}
	}
	fall := q.last[pid] - now
	for i := range mine {
		sum := int64(0)
		for j := i; j < len(mine) && sum < fall; j++ {
			if sum += mine[j].s.bytes; sum == fall {
				return mine[i : j+1]
			}
		}
	}
	n := 0
	for ; owed > now; n++ {
		owed -= mine[n].s.bytes
	}
	return mine[:n]
}

// heir is a process whose charge has risen by what another one's has fallen.
func (q *debts) heir(from int, now map[int]int64, bytes int64) int {
	for pid, charge := range now {
		if pid != from && pid != os.Getpid() && charge-q.last[pid] >= bytes {
			return pid
		}
	}
	return 0
}

// paid ends a debt.
func (q *debts) paid(d *Driver, b *debt) {
	q.list = slices.DeleteFunc(q.list, func(x *debt) bool { return x == b })
	d.discount(b.s)
}

// discount stops counting a destroyed segment, once.
func (d *Driver) discount(s *Segment) {
	d.mu.Lock()
	_, is := d.live[s]
	delete(d.live, s)
	if is {
		d.bytes -= s.bytes
	}
	d.mu.Unlock()
	if is {
		d.back(s)
		close(s.back)
	}
}

// forgive ends all debts: the device is lost, and its memory with it.
func (d *Driver) forgive() {
	d.debts.mu.Lock()
	defer d.debts.mu.Unlock()
	d.debts.list = nil
	for _, s := range d.leaving() {
		d.discount(s)
	}
}

// leaving are the segments that were destroyed and still count.
func (d *Driver) leaving() (list []*Segment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.live {
		if s.leaves {
			list = append(list, s)
		}
	}
	return list
}

// inDriver tells whether a thread that gives memory back has not returned.
func (q *debts) inDriver() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.begun != q.ended || slices.ContainsFunc(q.list, func(b *debt) bool { return b.trying })
}

// gives notes that memory is being given back, until the function that it returns is called.
func (q *debts) gives() (ended func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.begun++
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.ended++
	}
}

// again tries once more to unmap what the driver would not, on threads of its own.
func (d *Driver) again(now clock.Instant) {
	for _, b := range d.debts.list {
		if !b.unmap || b.trying || now < b.due {
			continue
		}
		b.trying = true
		go func() {
			err := onThread(d.cu, d.ctx, func() error { return d.unmap(b.s) })
			d.debts.mu.Lock()
			defer d.debts.mu.Unlock()
			b.trying = false
			if b.s.unmapped && b.s.released {
				d.debts.paid(d, b)
				return
			}
			b.unmap = !b.s.unmapped
			b.pause = min(2*b.pause, retryLast)
			b.due = d.c.Clock.Now().Add(b.pause)
			d.stays(b.s, err)
		}()
	}
}

// excess is what we are charged with beside our live segments; without NVML, what is in use of
// the device beside them.
func (d *Driver) excess(list []api.Process, listed bool) (int64, bool) {
	ours := d.held()
	if i := slices.IndexFunc(list, func(p api.Process) bool { return p.PID == os.Getpid() && p.Bytes >= 0 }); listed && i >= 0 {
		for _, n := range d.debts.pinned() {
			ours -= n
		}
		return list[i].Bytes - ours, true
	}
	_, used, err := d.figures()
	return used - ours, err == nil
}

// held sums the live segments.
func (d *Driver) held() (bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.live {
		bytes += s.bytes
	}
	return bytes
}

// uses says what other processes use by themselves. What they are charged with of ours, because
// they have let us have it (after a take-over whoever mapped memory first may be charged) or
// because we have destroyed it, is not that.
func (d *Driver) uses(list []api.Process) []device.ProcessUse {
	owed := d.debts.pinned()
	ours := d.held()
	var out []device.ProcessUse
	lent := int64(0)
	for _, p := range list {
		if p.PID == os.Getpid() {
			for _, n := range owed {
				ours -= n
			}
			lent = max(0, ours-max(0, p.Bytes-d.overhead))
		} else if p.Bytes >= 0 {
			pinned := min(owed[p.PID], p.Bytes)
			out = append(out, device.ProcessUse{PID: p.PID, Bytes: p.Bytes - pinned, Pinned: pinned})
		}
	}
	most := func(a, b device.ProcessUse) int {
		return cmp.Or(cmp.Compare(b.Bytes+b.Pinned, a.Bytes+a.Pinned), cmp.Compare(a.PID, b.PID))
	}
	slices.SortFunc(out, most)
	for i := range out {
		n := min(lent, out[i].Bytes)
		out[i].Bytes -= n
		lent -= n
	}
	out = slices.DeleteFunc(out, func(u device.ProcessUse) bool { return u.Bytes+u.Pinned == 0 })
	slices.SortFunc(out, most)
	return out
}

// name cuts a list of processes to what a sample tells, and names them.
func (d *Driver) name(list []device.ProcessUse) []device.ProcessUse {
	list = list[:min(len(list), device.MaxOthers)]
	for i := range list {
		list[i].Command = d.command(list[i].PID)
	}
	return list
}

// command is a process's short name, "" where it cannot be read.
func (d *Driver) command(pid int) string {
	text, err := os.ReadFile(filepath.Join(d.c.Root, "proc", strconv.Itoa(pid), "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

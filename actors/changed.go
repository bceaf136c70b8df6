package actors

import (
	"strings"
	"time"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights"
)

// stale reports whether a load would be served by a resident copy whose file may have
// changed since. One that came as an open file has no path to look at; another tenant's
// model is for that tenant to look after.
func (p *poolActor) stale(m *catalog.Model, r *catalog.LoadRequest) bool {
	cp := m.Copy(r.Device)
	if cp == nil {
		cp = p.core.WarmCopy(m, r.Device)
	}
	return cp != nil && cp.State == catalog.Sealed && m.Tenant == r.Tenant && (r.Path == "" || m.At(r.Path)) &&
		!strings.HasPrefix(m.Path, offeredPath)
}

// lookPatience is how long a look at a file may take before the command is followed: an
// answer at once needs no operation.
const lookPatience = 100 * time.Millisecond

// lookCanceller ends a load whose file is looked at before the catalog hears of it: once it
// was looked at, the load is the catalog's.
func (p *poolActor) lookCanceller(c *call, ref any, looked *bool) canceller {
	return func(err *schemas.Error, seen func()) {
		p.tell(seam.SystemLane, func() {
			switch {
			case *looked:
				p.core.Cancel(ref, err, p.house.now())
				p.flush()
			case !c.answered:
				c.fail(err)
			}
			seen()
		})
	}
}

// lookAgain loads a model that is resident, after a look whether its file is still the one
// that was loaded. A changed one is loaded as a new version.
func (p *poolActor) lookAgain(c *call, r catalog.LoadRequest, m *catalog.Model) {
	looked := false
	slow := p.house.cfg.Clock.AfterFunc(min(lookPatience, c.Wait), func() {
		p.tell(seam.SystemLane, func() {
			if looked {
				return
			}
			c.follow(schemas.StatusRunning, 0, "its file is being looked at", p.lookCanceller(c, r.Ref, &looked))
		})
	})
	p.house.transfer.changed(m, func(changed bool) {
		looked = true
		slow.Stop()
		if c.answered {
			return // given up meanwhile
		}
		r.Changed = changed
		p.loadWith(c, r)
	})
}

// changed looks on a worker whether a model's path leads to other content than was loaded,
// and gives that to use on the pool's goroutine. A file that cannot be read has not
// changed: what is resident is as good as it was.
func (t *transferActor) changed(m *catalog.Model, use func(bool)) {
	path := m.Path
	stamp, _ := m.Stamp.(*weights.Stamp)
	p := t.house.pool
	t.tell(seam.SystemLane, func() {
		t.crew.join(func() {
			if stamp != nil {
				same, err := stamp.Same(t.house.cfg.Roots)
				if err != nil {
					t.house.log.Warn("the file of a resident model cannot be looked at", "path", path, "error", err)
				}
				p.tell(seam.SystemLane, func() { use(err == nil && !same) })
				return
			}
			src, desc, err := t.describe(path)
			if src != nil {
				src.model.Close()
			}
			p.tell(seam.SystemLane, func() { use(err == nil && p.core.Seen(m, desc.ContentID, desc.Stamp)) })
		})
	})
}

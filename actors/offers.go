package actors

import (
	"os"

	"github.com/isobar-project/isobar/actors/seam"
	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights"
)

// offeredPath begins the path of a model that came as an open file. It says what the file
// was called and which content it has, so that the catalog tells models of one name apart
// as it does by the paths of files; it is no path that could be opened.
const offeredPath = "descriptor:"

// offered is an open model file on its way from the client that offered it to the load
// that reads it. One goroutine at a time has it.
type offered struct {
	name string
	file *os.File // nil once it is looked at
	src  *source  // from then on, until a load takes it
	desc catalog.Description
}

// close lets go of a file that no load has taken; a nil *offered has none.
func (o *offered) close() {
	if o == nil {
		return
	}
	if o.file != nil {
		o.file.Close()
		o.file = nil
	}
	if o.src != nil {
		o.src.model.Close()
		o.src = nil
	}
}

// letGo closes files that nobody asked for.
func letGo(files []any) {
	for _, f := range files {
		f.(*offered).close()
	}
}

// Offer implements dataplane.Desk. What could never be read is refused here, where the
// client still knows which file it meant.
func (k *dataDesk) Offer(session, name string, file *os.File, done func(string, error)) {
	o := &offered{name: name, file: file}
	if err := weights.CheckOffered(file, name); err != nil {
		o.close()
		done("", modelError(err))
		return
	}
	s := k.house.sessions
	err := s.tell(seam.GrantLane, func() {
		claim, fail := s.takeOffer(ledger.SessionID(session), o)
		if fail != nil {
			o.close()
			done("", fail)
			return
		}
		done(claim, nil)
	})
	if err != nil {
		o.close()
		done("", busy("the node"))
	}
}

func (s *sessionsActor) takeOffer(session ledger.SessionID, o *offered) (string, *schemas.Error) {
	x, fail := s.core.Lookup(session)
	if fail != nil {
		return "", fail
	}
	now := s.house.cfg.Clock.Now()
	letGo(s.offers.Expire(now))
	return s.offers.Add(session, s.house.tenantOnSocket(x.Process.UID), o, now)
}

func fileClaimOf(data any) string {
	if r, ok := data.(*schemas.LoadModelRequest); ok {
		return r.FileClaim
	}
	return ""
}

// redeem gives a command the file that it has a claim to. A dry run gets a descriptor of its
// own: the claim stays good.
func (s *sessionsActor) redeem(c *call) *schemas.Error {
	claim := fileClaimOf(c.Data)
	if claim == "" {
		return nil
	}
	f, err := s.offers.Redeem(claim, c.Tenant, c.DryRun, s.house.cfg.Clock.Now())
	if err != nil {
		return err
	}
	o := f.(*offered)
	if c.DryRun {
		again, err := weights.Duplicate(o.file)
		if err != nil {
			return schemas.Errorf(schemas.CodeBusy, "no descriptor is free for the offered file: %v", err).With("retry_after_ms", 1000)
		}
		o = &offered{name: o.name, file: again}
	}
	c.offered = o
	return nil
}

// loadOffered loads from an open file. Its headers are read before the catalog hears of the
// load: only they tell whether a resident model of that name is the same.
func (p *poolActor) loadOffered(c *call, r catalog.LoadRequest) {
	o, looked := c.offered, false
	a := r.Ref.(*modelCall)
	if a.audit.verify && !c.DryRun {
		// The load closes what it reads, or needs no file where the model is there.
		again, err := weights.Duplicate(o.file)
		if err != nil {
			c.fail(schemas.Errorf(schemas.CodeBusy, "no descriptor is free for the offered file: %v", err).With("retry_after_ms", 1000))
			o.close()
			return
		}
		a.audit.file, a.audit.name = again, o.name
	}
	c.follow(schemas.StatusRunning, 0, "the offered file is being looked at", p.lookCanceller(c, r.Ref, &looked))
	file := o.file
	o.file = nil // the reader's
	p.house.transfer.look(file, o.name, func(src *source, desc catalog.Description, err *schemas.Error) {
		looked = true
		switch {
		case c.answered: // given up meanwhile
			if src != nil {
				src.model.Close()
			}
			a.audit.close()
		case err != nil:
			a.audit.close()
			c.fail(err)
		default:
			o.src, o.desc = src, desc
			r.Path, r.Offered = desc.Path, o
			p.loadWith(c, r)
			if !c.answered {
				o.close() // somebody else's load, or a copy that is there: no file is needed
			}
		}
	})
}

// look reads the headers of an offered file on a worker, and gives what it found to use on
// the pool's goroutine.
func (t *transferActor) look(f *os.File, name string, use func(*source, catalog.Description, *schemas.Error)) {
	t.tell(seam.SystemLane, func() {
		t.crew.join(func() {
			var src *source
			var desc catalog.Description
			var fail *schemas.Error
			m, err := weights.InspectFile(t.ctx, f, name, weights.Options{})
			if err != nil {
				fail = modelError(err)
			} else {
				src, desc = describeModel(m, offeredPath+name+"#"+m.ContentID[:16])
			}
			t.house.pool.tell(seam.SystemLane, func() { use(src, desc, fail) })
		})
	})
}

// inspect looks at a model's files, or takes what was found in an offered one.
func (p *poolActor) inspect(cp *catalog.Copy, r catalog.LoadRequest) {
	o, _ := r.Offered.(*offered)
	if o == nil || o.src == nil {
		p.house.transfer.inspect(cp, r)
		return
	}
	src, desc := o.src, o.desc
	o.src = nil // the load's
	// Not here: the catalog's effects are being carried out.
	p.tell(seam.SystemLane, func() { p.inspected(cp, &r, src, desc, nil) })
}

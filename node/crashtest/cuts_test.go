package crashtest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/actors"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/device/hostram"
	"github.com/isobar-project/isobar/device/sim"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// life is a house in this process, on a recorder's memory.
type life struct {
	t     testing.TB
	house *actors.House
	rec   *recorder
	mu    sync.Mutex
	gone  []func() // what the house waits for: the exit of its sessions' processes
}

type discard struct{}

func (discard) Publish(schemas.Event) {}

// live opens a house. Where alive is false, the processes of inherited sessions are dead.
func live(t testing.TB, rec *recorder, inherited map[uint64]*os.File, models string, alive bool, crash func(string)) (*life, error) {
	roots, err := weights.NewRoots(models)
	if err != nil {
		return nil, err
	}
	gpu, err := sim.New(sim.Config{ID: "gpu-0", Bytes: 256 * mib})
	if err != nil {
		return nil, err
	}
	ram, err := hostram.New(hostram.Config{ID: "ram-0", SmallPages: true})
	if err != nil {
		return nil, err
	}
	l := &life{t: t, rec: rec}
	l.house, err = actors.Open(actors.Config{
		Node: "test", BootID: "boot", DataSocket: "/nowhere", Publisher: discard{}, Keeper: rec, Memory: rec.memory, Inherited: inherited,
		Devices: []actors.DeviceConfig{{Driver: gpu, Limit: 256 * mib}, {Driver: ram, Limit: 64 * mib}}, Roots: roots, Crash: crash,
		Watch: func(_ *os.File, gone func()) (func(), error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.gone = append(l.gone, gone)
			return func() {}, nil
		},
		Find: func(int, uint64) (*os.File, error) {
			if !alive {
				return nil, os.ErrProcessDone
			}
			return os.Open(os.DevNull)
		},
	})
	return l, err
}

func (l *life) close() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.house.Close(ctx); err != nil {
		l.t.Error(err)
	}
}

// exit ends the processes of all sessions.
func (l *life) exit() {
	l.mu.Lock()
	gone := l.gone
	l.gone = nil
	l.mu.Unlock()
	for _, f := range gone {
		f()
	}
}

type outcome struct {
	data any
	err  *schemas.Error
}

type reply chan outcome

func (r reply) Done(data any, _ func()) { r <- outcome{data: data} }
func (r reply) Fail(err *schemas.Error) { r <- outcome{err: err} }

// say gives a command and waits for its answer.
func (l *life) say(id string, action schemas.Action, data any) (any, *schemas.Error) {
	l.t.Helper()
	content, err := json.Marshal(data)
	if err != nil {
		l.t.Fatal(err)
	}
	r := make(reply, 1)
	l.house.Submit(&actors.Command{Action: action, Tenant: schemas.DefaultTenant, RequestID: id, Chosen: id != "", Digest: sha256.Sum256(content), Data: data, Wait: patience, Reply: r})
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case o := <-r:
		return o.data, o.err
	case <-limit.C:
		l.t.Fatalf("%s %s is not answered", action, id)
		return nil, nil
	}
}

func (l *life) ask(action schemas.Action, data any) any {
	l.t.Helper()
	r, err := l.say("", action, data)
	if err != nil {
		l.t.Fatalf("%s: %v", action, err)
	}
	return r
}

// present lists the grants when nothing is under way any more, and holds them against the
// figures and the vault.
func (l *life) present() map[string]schemas.Allocation {
	l.t.Helper()
	for limit := clock.Real().Now().Add(patience); ; {
		grants := map[string]schemas.Allocation{}
		var sum, busy, used, pooled int64
		for _, a := range l.ask(schemas.ActionGetAllocations, &schemas.GetAllocationsRequest{}).(*schemas.GetAllocationsReply).Allocations {
			grants[a.AllocationID] = a
			sum += a.GrantedBytes
			if a.Status != schemas.AllocationActive {
				busy += a.GrantedBytes
			}
		}
		for _, u := range l.ask(schemas.ActionGetUsage, &schemas.GetUsageRequest{}).(*schemas.GetUsageReply).Devices {
			used += u.MemoryInfo.UsedMemory - u.MemoryInfo.ForeignMemory
			pooled += u.MemoryInfo.PooledMemory
		}
		held := l.rec.bytes()
		if busy == 0 && sum == used && held == used+pooled {
			return grants
		}
		if clock.Real().Now() > limit {
			l.t.Fatalf("grants of %d bytes (%d not active), %d in use, %d pooled, %d in the vault: %+v", sum, busy, used, pooled, held, grants)
		}
	}
}

// conn is the data socket of a session whose client does what it is asked to.
type conn struct{ revoked func(string) }

func (c *conn) Revoke(id string, _ time.Duration, _ string) { c.revoked(id) }
func (c *conn) Close()                                      {}

// step is one command of the script; with it goes what exists after it.
type step struct {
	name  string
	run   func(x *telling) error
	makes string // a name for the allocation it grants
	ends  []string
	again func(x *telling, l *life) (id string, replayed bool, err *schemas.Error)
}

// telling is the script as it is told to the first house.
type telling struct {
	l       *life
	models  string
	ids     map[string]string // allocations by name
	claims  map[string]string
	desk    dataplane.Desk
	session string
	conn    *conn
	at      int // commands answered
	mu      sync.Mutex
}

func (x *telling) answered() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.at
}

func (x *telling) path(name string) string { return filepath.Join(x.models, name+".safetensors") }

// command makes a step of a command with a request_id.
func command(name string, makes string, action schemas.Action, request func(x *telling) any, ends ...string) step {
	say := func(x *telling, l *life) (string, string, bool, *schemas.Error) {
		data, err := l.say(name, action, request(x))
		if err != nil {
			return "", "", false, err
		}
		switch r := data.(type) {
		case *schemas.AllocateReply:
			if r.Handle != nil {
				return r.AllocationID, r.Handle.Claim, r.Replayed, nil
			}
			return r.AllocationID, "", r.Replayed, nil
		case *schemas.LoadModelReply:
			if r.Handle != nil {
				return r.AllocationIDs[0], r.Handle.Claim, r.Replayed, nil
			}
			return r.AllocationIDs[0], "", r.Replayed, nil
		case *schemas.DeallocateReply:
			return "", "", r.Replayed, nil
		case *schemas.UnloadModelReply:
			return "", "", r.Replayed, nil
		case *schemas.AcquireModelReply:
			return "", r.ReferenceID, r.Replayed, nil
		case *schemas.ReleaseModelReply:
			return "", "", r.Replayed, nil
		case *schemas.TransferReply:
			return r.AllocationID, "", r.Replayed, nil
		case *schemas.DefragmentReply:
			return "", "", r.Replayed, nil
		}
		return "", "", false, nil
	}
	return step{name: name, makes: makes, ends: ends,
		run: func(x *telling) error {
			id, claim, _, err := say(x, x.l)
			if err != nil {
				return err
			}
			if makes != "" {
				x.ids[makes] = id
			}
			x.claims[name] = claim
			return nil
		},
		again: func(x *telling, l *life) (string, bool, *schemas.Error) {
			id, _, replayed, err := say(x, l)
			return id, replayed, err
		},
	}
}

func allocate(name, device string, size int64) step {
	return command(name, name, schemas.ActionAllocate, func(*telling) any {
		return &schemas.AllocateRequest{DeviceID: device, SizeBytes: size, Class: schemas.ClassState}
	})
}

func deallocate(name string) step {
	return command("end-"+name, "", schemas.ActionDeallocate, func(x *telling) any {
		return &schemas.DeallocateRequest{AllocationID: x.ids[name], Force: true}
	}, name)
}

func loadModel(name, device string) step {
	return command("load-"+name, name, schemas.ActionLoadModel, func(x *telling) any {
		return &schemas.LoadModelRequest{Name: name, Path: x.path(name), DeviceID: device}
	})
}

func unloadModel(name string) step {
	return command("end-"+name, "", schemas.ActionUnloadModel, func(*telling) any {
		return &schemas.UnloadModelRequest{Name: name, Force: true}
	}, name)
}

// theScript touches every region, and every pair of them in both orders.
func theScript() []step {
	hello := func(x *telling) error {
		fd, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		x.conn = &conn{revoked: func(id string) { x.desk.Unmap(x.session, id, func(error) {}) }}
		peer := fdwire.Peer{PID: os.Getpid(), UID: uint32(os.Getuid()), StartTime: 1, PidFD: fd}
		x.desk.Hello(peer, dataplane.Hello{Client: "script"}, x.conn, func(w dataplane.Welcome, err error) {
			x.session = w.SessionID
			done <- err
		})
		return <-done
	}
	mapIt := func(claim string, mode dataplane.Mode) func(*telling) error {
		return func(x *telling) error {
			done := make(chan error, 1)
			x.desk.Map(x.session, x.claims[claim], mode, func(m *dataplane.Mapping, err error) {
				if m != nil {
					m.Close()
				}
				done <- err
			})
			return <-done
		}
	}
	unmap := func(name string) func(*telling) error {
		return func(x *telling) error {
			done := make(chan error, 1)
			x.desk.Unmap(x.session, x.ids[name], func(err error) { done <- err })
			return <-done
		}
	}
	return []step{
		allocate("a", "gpu-0", 2*mib),
		command("b", "b", schemas.ActionAllocate, func(*telling) any {
			return &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: mib, Class: schemas.ClassScratch}
		}),
		loadModel("m", "gpu-0"),
		{name: "hello", run: hello},
		{name: "map b", run: mapIt("b", dataplane.ReadWrite)},
		command("acquire", "", schemas.ActionAcquireModel, func(x *telling) any {
			lease := int64(600)
			return &schemas.AcquireModelRequest{Name: "m", LeaseSeconds: &lease}
		}),
		loadModel("n", "ram-0"),
		command("c", "c", schemas.ActionAllocate, func(x *telling) any {
			return &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 2 * mib, SessionID: x.session, Class: schemas.ClassScratch}
		}),
		{name: "map n", run: mapIt("load-n", dataplane.ReadOnly)},
		{name: "unmap n", run: unmap("n")},
		command("release", "", schemas.ActionReleaseModel, func(x *telling) any {
			return &schemas.ReleaseModelRequest{Name: "m", ReferenceID: x.claims["acquire"]}
		}),
		unloadModel("m"),
		deallocate("a"),
		allocate("d", "gpu-0", 20*mib),
		{name: "exit", run: func(x *telling) error {
			x.desk.Ended(x.session, x.conn)
			x.l.exit()
			x.l.present()
			return nil
		}, ends: []string{"b", "c"}},
		unloadModel("n"),
		deallocate("d"),
	}
}

// A crash after any store to any region leaves a ledger from which a whole house goes on.
func TestTakeOverAfterEveryStore(t *testing.T) {
	models := filepath.Join(place(t), "models")
	for i, m := range []string{"m", "n"} {
		if err := weightstest.Sized(300<<10, uint64(i)).WriteSafetensors(filepath.Join(models, m+".safetensors")); err != nil {
			t.Fatal(err)
		}
	}
	rec := newRecorder(t)
	defer rec.close()
	l, err := live(t, rec, nil, models, true, rec.crash)
	if err != nil {
		t.Fatal(err)
	}
	x := &telling{l: l, models: models, ids: map[string]string{}, claims: map[string]string{}, desk: l.house.DataDesk(func() string { return "" })}
	rec.mu.Lock()
	rec.answered = x.answered
	rec.mu.Unlock()
	script := theScript()
	for _, s := range script {
		if err := s.run(x); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		x.mu.Lock()
		x.at++
		x.mu.Unlock()
	}
	if left := l.present(); len(left) != 0 {
		t.Fatalf("the script leaves %+v", left)
	}
	l.close()
	every := 1
	if !*full {
		every = max(1, len(rec.cuts)/60)
	}
	taken := 0
	for i := 0; i < len(rec.cuts); i += every {
		taken++
		takeOver(t, x, script, i, rec.cuts[i], i/every%2 == 0)
		if t.Failed() {
			return
		}
	}
	t.Logf("| take-over after every store | %d stores to %d regions by %d commands | %d of them taken over |", len(rec.cuts), len(rec.regions), len(script), taken)
}

// takeOver opens a house on a cut and checks that everything answered is honoured, that
// the command under way happened or did not, and that nothing is left in the end.
func takeOver(t *testing.T, x *telling, script []step, at int, c cut, alive bool) {
	t.Helper()
	where := fmt.Sprintf("store %d, in «%s»", at, script[min(c.answered, len(script)-1)].name)
	l, done := onCut(t, x, c, where, alive)
	defer done()
	if r := l.house.Restored(); len(r.LostGrants) > 0 || len(r.LostModels) > 0 {
		t.Errorf("%s: restored %+v", where, r)
	}
	there := l.present()
	must, may := expected(x, script, c.answered)
	if !alive { // what was bound to the session ends with it
		for _, name := range []string{"b", "c"} {
			if c.answered >= slices.IndexFunc(script, func(s step) bool { return s.name == "map b" }) {
				delete(must, x.ids[name])
			}
		}
	}
	for id, name := range must {
		if _, ok := there[id]; !ok {
			t.Errorf("%s: %s was answered and is gone", where, name)
		}
	}
	for id, a := range there {
		if _, ok := may[id]; !ok {
			t.Errorf("%s: nobody was granted %+v", where, a)
		}
	}
	// The client says everything again.
	for i, s := range script[:min(c.answered+1, len(script))] {
		if s.again == nil {
			continue
		}
		id, replayed, err := s.again(x, l)
		switch {
		case i == c.answered:
			// Under way: it had its effect, or has it now, or what it speaks of ended.
			if _, ok := there[id]; s.makes != "" && err == nil && replayed && !ok && x.ids[s.makes] == id && alive {
				t.Errorf("%s: %s again tells of %s, which is not there", where, s.name, id)
			}
		case err != nil && err.Code == schemas.CodeStaleHandle && s.makes != "" && there[x.ids[s.makes]].AllocationID == "":
			// It is remembered; the model that it loaded has been released since.
		case err != nil:
			t.Errorf("%s: %s again: %v", where, s.name, err)
		case !replayed:
			t.Errorf("%s: %s again was a second time", where, s.name)
		case s.makes != "" && id != x.ids[s.makes]:
			t.Errorf("%s: %s again gave %s, first %s", where, s.name, id, x.ids[s.makes])
		}
	}
	l.exit()
	l.ask(schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: schemas.ModelNameAll, Force: true})
	for id, a := range l.present() {
		if a.Class != schemas.ClassWeights {
			l.ask(schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id, Force: true})
		}
	}
	for limit := clock.Real().Now().Add(patience); ; {
		left := l.present()
		if len(left) == 0 && l.rec.bytes() == 0 {
			return
		}
		if clock.Real().Now() > limit {
			t.Fatalf("%s: left are %d bytes in the vault, %+v", where, l.rec.bytes(), left)
		}
	}
}

// expected says which allocations must be there and which may, when the first n commands
// were answered and the next one was under way.
func expected(x *telling, script []step, n int) (must, may map[string]string) {
	before := map[string]string{}
	apply := func(m map[string]string, s step) {
		if s.makes != "" {
			m[x.ids[s.makes]] = s.makes
		}
		for _, name := range s.ends {
			delete(m, x.ids[name])
		}
	}
	for _, s := range script[:n] {
		apply(before, s)
	}
	must, may = maps.Clone(before), maps.Clone(before)
	if n < len(script) {
		after := maps.Clone(before)
		apply(after, script[n])
		maps.Copy(may, after)
		for id := range before {
			if _, stays := after[id]; !stays {
				delete(must, id)
			}
		}
	}
	return must, may
}

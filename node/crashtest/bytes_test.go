package crashtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane"
	"github.com/isobar-project/isobar/fdwire"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// byteSizes are the grants of the script about bytes. Two of the small ones fill a segment.
var byteSizes = map[string]int64{"source": 1200 << 10, "moving": 800 << 10, "s0": 1500 << 10, "s1": 1500 << 10, "s2": 1500 << 10, "s3": 1500 << 10, "s4": 1500 << 10, "s5": 1500 << 10}

// byteOrigin says whose bytes the grant of a transfer has.
var byteOrigin = map[string]string{"copied": "source", "moved": "moving"}

// bytesOf is what a grant of the script holds.
func bytesOf(name string) []byte {
	if from := byteOrigin[name]; from != "" {
		name = from
	}
	b := make([]byte, byteSizes[name])
	pattern(uint64(name[len(name)-1])<<8|uint64(name[0]), 0, b)
	return b
}

// visit opens a session on a house.
func visit(l *life, c dataplane.Conn) (string, error) {
	fd, err := os.Open(os.DevNull)
	if err != nil {
		return "", err
	}
	type welcomed struct {
		id  string
		err error
	}
	done := make(chan welcomed, 1)
	peer := fdwire.Peer{PID: os.Getpid(), UID: uint32(os.Getuid()), StartTime: 1, PidFD: fd}
	l.house.DataDesk(func() string { return "" }).Hello(peer, dataplane.Hello{Client: "bytes"}, c, func(w dataplane.Welcome, err error) { done <- welcomed{w.SessionID, err} })
	w := <-done
	return w.id, w.err
}

// touch maps a grant, gives its pieces to f in order, and unmaps it.
func touch(l *life, session, id string, mode dataplane.Mode, f func(file *os.File, at, size int64) error) error {
	h, refused := l.say("", schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: id})
	if refused != nil {
		return refused
	}
	desk := l.house.DataDesk(func() string { return "" })
	done := make(chan error, 1)
	desk.Map(session, h.(*schemas.GetHandleReply).Handle.Claim, mode, func(m *dataplane.Mapping, err error) {
		if err != nil {
			done <- err
			return
		}
		defer m.Close()
		for _, s := range m.Segments {
			if err = f(s.File, s.Offset, s.SizeBytes); err != nil {
				break
			}
		}
		done <- err
	})
	if err := <-done; err != nil {
		return err
	}
	desk.Unmap(session, id, func(err error) { done <- err })
	return <-done
}

// write puts a grant's bytes into it.
func write(l *life, session, id, name string) error {
	b := bytesOf(name)
	return touch(l, session, id, dataplane.ReadWrite, func(file *os.File, at, size int64) error {
		if _, err := file.WriteAt(b[:size], at); err != nil {
			return err
		}
		b = b[size:]
		return nil
	})
}

// holds says whether a grant has its bytes.
func holds(l *life, session, id, name string) error {
	want := bytesOf(name)
	return touch(l, session, id, dataplane.ReadOnly, func(file *os.File, at, size int64) error {
		got := make([]byte, size)
		if _, err := file.ReadAt(got, at); err != nil {
			return err
		}
		if !bytes.Equal(got, want[:size]) {
			return fmt.Errorf("%s, %s, does not hold its bytes", name, id)
		}
		want = want[size:]
		return nil
	})
}

// byteScript has the node copy, move and defragment bytes.
func byteScript() []step {
	script := []step{{name: "hello", run: func(x *telling) (err error) {
		x.conn = &conn{revoked: func(string) {}}
		x.session, err = visit(x.l, x.conn)
		return err
	}}}
	grant := func(name, device string) {
		script = append(script,
			allocate(name, device, byteSizes[name]),
			step{name: "write " + name, run: func(x *telling) error { return write(x.l, x.session, x.ids[name], name) }})
	}
	transfer := func(name, source, to string, move bool, ends ...string) {
		script = append(script, command(name, name, schemas.ActionTransfer, func(x *telling) any {
			return &schemas.TransferRequest{AllocationID: x.ids[source], TargetDeviceID: to, Move: move}
		}, ends...))
	}
	grant("source", "gpu-0")
	grant("moving", "gpu-0")
	transfer("copied", "source", "ram-0", false)
	transfer("moved", "moving", "ram-0", true, "moving")
	for i := range 6 {
		grant(fmt.Sprint("s", i), "gpu-0")
	}
	for _, name := range []string{"s1", "s2", "s4"} {
		script = append(script, deallocate(name))
	}
	return append(script, command("defragment", "", schemas.ActionDefragment, func(*telling) any {
		return &schemas.DefragmentRequest{DeviceID: "gpu-0", Strategy: schemas.DefragmentFull}
	}))
}

// A crash after any store, while bytes are copied, moved or defragmented: each is finished or
// undone, and every byte that was answered for is as before.
func TestBytesAfterEveryStore(t *testing.T) {
	models := filepath.Join(place(t), "models")
	rec := newRecorder(t)
	rec.keeps, rec.off = true, true // what the house itself stores at first is another test's
	if !*full {
		rec.each = 13
	}
	defer rec.close()
	l, err := live(t, rec, nil, models, true, rec.crash)
	if err != nil {
		t.Fatal(err)
	}
	x := &telling{l: l, models: models, ids: map[string]string{}, claims: map[string]string{}}
	rec.mu.Lock()
	rec.answered = x.answered
	rec.mu.Unlock()
	script := byteScript()
	for _, s := range script {
		if err := s.run(x); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		x.mu.Lock()
		x.at++
		x.mu.Unlock()
		rec.mu.Lock()
		rec.off = false
		rec.mu.Unlock()
	}
	l.close()
	for i, c := range rec.cuts {
		if bytesTakenOver(t, x, script, i, c); t.Failed() {
			break
		}
	}
	t.Logf("| bytes after every store | %d stores by %d commands | %d of them taken over |", rec.count, len(script), len(rec.cuts))
}

// onCut opens a house on a cut. done closes it, and ends the recording of it.
func onCut(t *testing.T, x *telling, c cut, where string, alive bool) (l *life, done func()) {
	t.Helper()
	rec, inherited, err := x.l.rec.from(c)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if l, err = live(t, rec, inherited, x.models, alive, nil); err != nil {
		rec.close()
		t.Fatalf("%s: %v", where, err)
	}
	return l, func() {
		l.close()
		rec.close()
	}
}

// bytesTakenOver opens a house on a cut and looks at every byte.
func bytesTakenOver(t *testing.T, x *telling, script []step, at int, c cut) {
	t.Helper()
	where := fmt.Sprintf("cut %d, in «%s»", at, script[min(c.answered, len(script)-1)].name)
	l, done := onCut(t, x, c, where, true)
	defer done()
	if r := l.house.Restored(); len(r.LostGrants) > 0 {
		t.Errorf("%s: restored %+v", where, r)
	}
	session, err := visit(l, &conn{revoked: func(string) {}})
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	there := settled(l, x)
	must, may := expected(x, script, c.answered)
	for id, name := range must {
		if _, ok := there[id]; !ok {
			t.Errorf("%s: %s was answered and is gone", where, name)
		}
	}
	_, moving := there[x.ids["moving"]]
	_, moved := there[x.ids["moved"]]
	begun := c.answered > slices.IndexFunc(script, func(s step) bool { return s.name == "write moving" })
	if moving && moved || begun && !moving && !moved {
		t.Errorf("%s: of a move the source is there: %t, the target: %t", where, moving, moved)
	}
	for id := range there {
		name, ok := may[id]
		if !ok {
			t.Errorf("%s: nobody was granted %+v", where, there[id])
			continue
		}
		// What was allocated and not written yet holds nothing.
		if written := slices.IndexFunc(script, func(s step) bool { return s.name == "write "+name }); written >= c.answered {
			continue
		}
		if err := holds(l, session, id, name); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	// What was under way is done when the client says it again.
	if s := script[min(c.answered, len(script)-1)]; s.again != nil && len(s.ends) == 0 {
		id, _, err := s.again(x, l)
		if err != nil {
			t.Errorf("%s: %s again: %v", where, s.name, err)
		} else if byteOrigin[s.name] != "" {
			if err := holds(l, session, id, s.name); err != nil {
				t.Errorf("%s, again: %v", where, err)
			}
		}
	}
	for id := range l.present() {
		l.ask(schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id, Force: true})
	}
	for limit := clock.Real().Now().Add(patience); len(l.present()) > 0 || l.rec.bytes() > 0; {
		if clock.Real().Now() > limit {
			t.Fatalf("%s: left are %d bytes in the vault", where, l.rec.bytes())
		}
	}
}

// settled is what is present once a move that a predecessor had filled has lost its source.
func settled(l *life, x *telling) map[string]schemas.Allocation {
	for limit := clock.Real().Now().Add(patience); ; {
		there := l.present()
		_, moving := there[x.ids["moving"]]
		_, moved := there[x.ids["moved"]]
		if !moving || !moved || clock.Real().Now() > limit {
			return there
		}
	}
}

// The node is killed with a copy and a move on their way to a slow device, and while it
// defragments: sources are as before, targets are gone, and said again all of it is done.
func TestKillWhileBytesAreMoved(t *testing.T) {
	const large, small = 24 * mib, 1500 << 10
	s := settings{Dir: place(t), Devices: []node.DeviceSpec{
		{Kind: node.DeviceSim, ID: "gpu-0", Bytes: 128 * mib},
		{Kind: node.DeviceSim, ID: "gpu-1", Bytes: 128 * mib, BandwidthBytesPerSecond: slowRate},
	}}
	n := start(t, s)
	k := vaultOf(t, s.Dir)
	w := &world{t: t, n: n, c: n.client(), k: k}
	writer := consume(t, n)
	seeds := map[string]uint64{}
	hold := func(device string, size int64) string {
		id := grant(t, w.n, w.c, writer, schemas.AllocateRequest{DeviceID: device, SizeBytes: size, Class: schemas.ClassState}, uint64(len(seeds)+1))
		seeds[id] = uint64(len(seeds) + 1)
		writer.tell(order{Do: "unmap", ID: id})
		return id
	}
	copied, moved := hold("gpu-0", large), hold("gpu-0", large)
	var scattered []string
	for i := range 8 {
		id := hold("gpu-1", small)
		if i%3 == 0 {
			scattered = append(scattered, id)
			continue
		}
		defer delete(seeds, id)
		must[schemas.DeallocateReply](w.n, w.c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id})
	}
	before := balanced(w.n, w.c, k)
	requests := map[string]any{
		"copy": &schemas.TransferRequest{AllocationID: copied, TargetDeviceID: "gpu-1"},
		"move": &schemas.TransferRequest{AllocationID: moved, TargetDeviceID: "gpu-1", Move: true},
	}
	flowing := func(op string) {
		for limit := clock.Real().Now().Add(patience); ; {
			r := must[schemas.GetOperationReply](w.n, w.c, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: op})
			if r.Operation.BytesDone > 0 && r.Operation.Status == schemas.StatusRunning {
				return
			}
			if clock.Real().Now() > limit || r.Operation.Status == schemas.StatusFailed {
				t.Fatalf("%+v", r.Operation)
			}
		}
	}
	tidy := &schemas.DefragmentRequest{DeviceID: "gpu-1", Strategy: schemas.DefragmentFull}
	var pending *client.PendingError
	if _, err := call[struct{}](w.n, w.c, schemas.ActionDefragment, tidy, client.WithRequestID("tidy"), client.WithWait(0)); err != nil && !errors.As(err, &pending) {
		t.Fatal(err)
	}
	for id, in := range requests {
		flowing(w.pending(id, schemas.ActionTransfer, in, schemas.StatusRunning, schemas.StatusQueued))
	}
	w.n.kill()
	w.n = start(t, s)
	w.c = w.n.client()

	// Undone: the books are those of before, and so are the bytes.
	after := balanced(w.n, w.c, k)
	for d := range before {
		a, b := before[d], after[d]
		for limit := clock.Real().Now().Add(patience); a.own() != b.own() && clock.Real().Now() < limit; {
			b = balanced(w.n, w.c, k)[d]
		}
		if a.own() != b.own() || len(a.Grants) != len(b.Grants) {
			t.Errorf("%s: %d bytes in %d grants before, %d in %d after", d, a.own(), len(a.Grants), b.own(), len(b.Grants))
		}
	}
	reader := consume(t, w.n)
	look := func(id string, seed uint64) {
		t.Helper()
		h := must[schemas.GetHandleReply](w.n, w.c, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: id})
		reader.tell(order{Do: "map", Claims: []string{h.Handle.Claim}, Seed: seed})
		reader.again()
		reader.tell(order{Do: "unmap", ID: id})
	}
	for _, id := range append([]string{copied, moved}, scattered...) {
		look(id, seeds[id])
	}

	// Said again it is done.
	must[schemas.DefragmentReply](w.n, w.c, schemas.ActionDefragment, tidy, client.WithRequestID("tidy"), client.WithWait(patience))
	for id, from := range map[string]string{"copy": copied, "move": moved} {
		r := must[schemas.TransferReply](w.n, w.c, schemas.ActionTransfer, requests[id], client.WithRequestID(id), client.WithWait(patience))
		if r.Operation.Status != schemas.StatusCompleted {
			t.Fatalf("%s again: %+v", id, r)
		}
		look(r.AllocationID, seeds[from])
	}
	look(copied, seeds[copied])
	for _, id := range scattered {
		look(id, seeds[id])
	}
	if b := balanced(w.n, w.c, k)["gpu-0"]; len(b.Grants) != 1 || b.own() != large {
		t.Errorf("after the move: %+v", b)
	}
}

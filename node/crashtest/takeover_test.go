package crashtest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

const (
	mib = 1 << 20

	smallGrants = 64  // of 1 MiB of main memory
	largeGrants = 960 // of 16 MiB of a simulated device: a segment each
	largeOf     = 3   // consumers that share them
	modelCount  = 50
	modelBytes  = 96 << 10
	slowBytes   = 40 * mib // of the model whose load is under way
	slowRate    = 16 * mib // bytes a second of its device
)

// world is what a node held before it was killed.
type world struct {
	t         *testing.T
	n         *nodeProcess
	c         *client.Client
	k         *keeper
	consumers []*consumerProcess
	reader    *consumerProcess
	ids       map[string]string // allocation by request_id
	claims    map[string]string // not redeemed yet, by request_id
	queued    []string          // request_ids
	leased    string
}

func rid(kind string, i int) string { return fmt.Sprintf("%s-%d", kind, i) }

// The machine dies with everything under way, and nobody who maps memory notices.
func TestTakeOverOfEverything(t *testing.T) {
	dir := place(t)
	s := settings{Dir: dir, JetStream: true, Devices: []node.DeviceSpec{
		{Kind: node.DeviceRAM, ID: "ram-0", Bytes: 512 * mib},
		{Kind: node.DeviceSim, ID: "gpu-0", Bytes: 64 << 30},
		{Kind: node.DeviceSim, ID: "gpu-1", Bytes: 256 * mib, BandwidthBytesPerSecond: slowRate},
	}}
	w := &world{t: t, n: start(t, s), ids: map[string]string{}, claims: map[string]string{}}
	w.k = vaultOf(t, dir)
	w.c = w.n.client()
	w.grants()
	w.models()
	before := balanced(w.n, w.c, w.k)
	w.underWay()
	segments, bytes := w.k.segments()
	passes := make([]int64, 0, len(w.consumers))
	for _, c := range append(w.consumers, w.reader) {
		passes = append(passes, c.again().Passes)
	}

	w.n.kill()
	w.n = start(t, s)
	w.c = w.n.client()
	must[schemas.GetStatusReply](w.n, w.c, schemas.ActionGetStatus, &schemas.GetStatusRequest{})
	first := clock.Real().Now().Sub(w.n.begun)

	gap := w.readersWentOn(passes)
	w.loadIsUndone()
	after := balanced(w.n, w.c, w.k)
	for _, d := range []string{"ram-0", "gpu-0", "gpu-1"} {
		sameBooks(t, d, before[d], after[d])
	}
	w.answersAndClaims()
	w.retries()
	w.releaseAll()
	t.Logf("| take-over | %d segments, %d bytes | %d models | first answer %.0f ms after exec (node: %.0f ms) | longest pass of a reader %.0f ms |",
		len(segments), bytes, modelCount, first.Seconds()*1e3, w.n.hello.Info.StartMs, gap)
}

// grants makes and maps the grants.
func (w *world) grants() {
	type want struct {
		device string
		size   int64
		count  int
	}
	seed := uint64(0)
	for i, x := range []want{{"ram-0", mib, smallGrants}, {"gpu-0", 16 * mib, largeGrants / largeOf}, {"gpu-0", 16 * mib, largeGrants / largeOf}, {"gpu-0", 16 * mib, largeGrants / largeOf}} {
		claims := make([]string, x.count)
		ids := make([]string, x.count)
		var wg sync.WaitGroup
		for lane := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for j := lane; j < x.count; j += 8 {
					r, err := call[schemas.AllocateReply](w.n, w.c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: x.device, SizeBytes: x.size},
						client.WithRequestID(rid(fmt.Sprint("grant-", i), j)))
					if err != nil {
						w.t.Error(err)
						return
					}
					claims[j], ids[j] = r.Handle.Claim, r.AllocationID
				}
			}()
		}
		wg.Wait()
		if w.t.Failed() {
			w.t.FailNow()
		}
		c := consume(w.t, w.n)
		w.consumers = append(w.consumers, c)
		c.tell(order{Do: "map", Claims: claims, Seed: seed, Write: true})
		seed += uint64(x.count)
		for j, id := range ids {
			w.ids[rid(fmt.Sprint("grant-", i), j)] = id
		}
	}
	for _, name := range []string{"unmapped", "unclaimed"} {
		r := must[schemas.AllocateReply](w.n, w.c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 2 * mib, Class: schemas.ClassState}, client.WithRequestID(name))
		w.ids[name], w.claims[name] = r.AllocationID, r.Handle.Claim
	}
	lease := int64(3600)
	r := must[schemas.AllocateReply](w.n, w.c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: mib, LeaseSeconds: &lease}, client.WithRequestID("leased"))
	w.ids["leased"], w.leased = r.AllocationID, r.AllocationID
	// The rest of gpu-1 is too little for those who will wait.
	r = must[schemas.AllocateReply](w.n, w.c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "gpu-1", SizeBytes: 192 * mib, Class: schemas.ClassState}, client.WithRequestID("filler"))
	w.ids["filler"] = r.AllocationID
}

// models loads the models and has them mapped; one is held by reference besides.
func (w *world) models() {
	w.reader = consume(w.t, w.n)
	for i := range modelCount {
		path := filepath.Join(w.n.settings.Dir, "models", fmt.Sprintf("m%d.safetensors", i))
		if err := weightstest.Sized(modelBytes, uint64(i)).WriteSafetensors(path); err != nil {
			w.t.Fatal(err)
		}
		r := must[schemas.LoadModelReply](w.n, w.c, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: rid("m", i), Path: path, DeviceID: "ram-0"}, client.WithRequestID(rid("load", i)))
		w.ids[rid("load", i)] = r.AllocationIDs[0]
		w.reader.tell(order{Do: "map", Claims: []string{r.Handle.Claim}, Model: modelBytes, Seed: uint64(i)})
	}
	lease := int64(3600)
	must[schemas.AcquireModelReply](w.n, w.c, schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: rid("m", 0), LeaseSeconds: &lease}, client.WithRequestID("acquire"))
}

// underWay begins a load that takes seconds, and requests that wait.
func (w *world) underWay() {
	path := filepath.Join(w.n.settings.Dir, "models", "slow.safetensors")
	if err := weightstest.Sized(slowBytes, 99).WriteSafetensors(path); err != nil {
		w.t.Fatal(err)
	}
	op := w.pending("slow", schemas.ActionLoadModel, w.slow(path), schemas.StatusRunning)
	// Bytes are flowing: until then the load has not asked for its memory, and who waits would be before it.
	for limit := clock.Real().Now().Add(patience); ; {
		r := must[schemas.GetOperationReply](w.n, w.c, schemas.ActionGetOperation, &schemas.GetOperationRequest{OperationID: op})
		if r.Operation.Status != schemas.StatusRunning || clock.Real().Now() > limit {
			w.t.Fatalf("the load is %+v", r.Operation)
		}
		if r.Operation.BytesDone > 0 {
			break
		}
	}
	for i := range 4 {
		id := rid("queued", i)
		w.queued = append(w.queued, id)
		w.pending(id, schemas.ActionAllocate, w.waits(), schemas.StatusQueued)
	}
}

func (w *world) slow(path string) *schemas.LoadModelRequest {
	return &schemas.LoadModelRequest{Name: "slow", Path: path, DeviceID: "gpu-1"}
}

func (w *world) waits() *schemas.AllocateRequest {
	patient := int64(600)
	return &schemas.AllocateRequest{DeviceID: "gpu-1", SizeBytes: 128 * mib, Class: schemas.ClassState, TimeoutSeconds: &patient}
}

// pending gives a command that is not done at once and returns its operation.
func (w *world) pending(id string, action schemas.Action, request any, want ...schemas.OperationStatus) string {
	w.t.Helper()
	_, err := call[struct{}](w.n, w.c, action, request, client.WithRequestID(id), client.WithWait(0))
	var p *client.PendingError
	if !errors.As(err, &p) || !slices.Contains(want, p.Status) {
		w.t.Fatalf("%s %s: %v, want %v", action, id, err, want)
	}
	return p.OperationID
}

// readersWentOn waits until every consumer has resumed its session, and checks that none
// missed a pass or saw a wrong byte. It returns the longest pass, in ms.
func (w *world) readersWentOn(passes []int64) (gap float64) {
	for i, c := range append(w.consumers, w.reader) {
		c.tell(order{Do: "ping"})
		l := c.again()
		for limit := clock.Real().Now().Add(patience); l.Resumed+l.New == 0 && clock.Real().Now() < limit; {
			l = c.sound()
		}
		if l.Resumed != 1 || l.New != 0 || len(l.Lost) != 0 {
			w.t.Errorf("consumer %d: %d resumed, %d new, lost %v", i, l.Resumed, l.New, l.Lost)
		}
		if l.Passes <= passes[i] {
			w.t.Errorf("consumer %d stood still: %d passes, then %d", i, passes[i], l.Passes)
		}
		gap = max(gap, l.Gap.Seconds()*1e3)
	}
	return gap
}

// loadIsUndone waits until the half-loaded model is gone.
func (w *world) loadIsUndone() {
	for limit := clock.Real().Now().Add(patience); ; {
		b := booksOf(w.n, w.c, "gpu-1")
		if b.own() == 192*mib && b.Memory.PooledMemory == 0 {
			break
		}
		if clock.Real().Now() > limit {
			w.t.Fatalf("the load that was under way is not undone: %+v", b)
		}
	}
	if _, err := call[schemas.GetModelInfoReply](w.n, w.c, schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{Name: "slow"}); err == nil {
		r := must[schemas.GetModelInfoReply](w.n, w.c, schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{Name: "slow"})
		if len(r.Models[0].Residency) != 0 {
			w.t.Errorf("half a model: %+v", r.Models[0])
		}
	}
}

// sameBooks compares a device before and after.
func sameBooks(t *testing.T, device string, a, b books) {
	t.Helper()
	type figures struct{ Used, Reserved, Revoking, Zombie, Pooled, Reclaimable, Model int64 }
	of := func(x books) figures {
		m := x.Memory
		return figures{x.own(), m.ReservedMemory, m.RevokingMemory, m.ZombieMemory, m.PooledMemory, m.ReclaimableMemory, m.ModelMemory}
	}
	if of(a) != of(b) {
		t.Errorf("%s: %+v before, %+v after", device, of(a), of(b))
	}
	if len(a.Grants) != len(b.Grants) {
		t.Errorf("%s: %d grants before, %d after", device, len(a.Grants), len(b.Grants))
	}
	for id, x := range a.Grants {
		y := b.Grants[id]
		if x.GrantedBytes != y.GrantedBytes || x.Status != y.Status || x.Owner != y.Owner || fmt.Sprint(x.MappedBy) != fmt.Sprint(y.MappedBy) ||
			x.Class != y.Class || x.ModelName != y.ModelName || !x.CreatedAt.Equal(y.CreatedAt) || (x.LeaseExpiresAt == nil) != (y.LeaseExpiresAt == nil) {
			t.Errorf("%s: %+v before, %+v after", device, x, y)
			return
		}
		if x.LeaseExpiresAt != nil {
			if d := y.LeaseExpiresAt.Sub(*x.LeaseExpiresAt); d.Abs().Seconds() > 1 {
				t.Errorf("%s: the lease of %s moved by %v", device, id, d)
			}
		}
	}
}

// answersAndClaims checks that commands sent again get the first outcome, and that claims
// given out before are good once.
func (w *world) answersAndClaims() {
	for i, d := range []string{"ram-0", "gpu-0"} {
		size := []int64{mib, 16 * mib}[i]
		for j := range 20 {
			id := rid(fmt.Sprint("grant-", i), j)
			r := must[schemas.AllocateReply](w.n, w.c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: d, SizeBytes: size}, client.WithRequestID(id))
			if r.AllocationID != w.ids[id] || !r.Replayed || r.Handle == nil {
				w.t.Fatalf("%s again: %+v, want %s", id, r, w.ids[id])
			}
		}
	}
	l := must[schemas.LoadModelReply](w.n, w.c, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: rid("m", 7), Path: filepath.Join(w.n.settings.Dir, "models", "m7.safetensors"), DeviceID: "ram-0"},
		client.WithRequestID(rid("load", 7)))
	if !l.Replayed || l.AllocationIDs[0] != w.ids[rid("load", 7)] {
		w.t.Fatalf("a load again: %+v", l)
	}
	info := must[schemas.GetModelInfoReply](w.n, w.c, schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{Name: rid("m", 0)})
	if m := info.Models[0]; m.Readers != 2 || m.State != schemas.ModelSealed {
		w.t.Errorf("a model that a session maps and a reference holds: %+v", m)
	}
	// A fresh claim, and one that was given out before the crash.
	r := must[schemas.AllocateReply](w.n, w.c, schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 2 * mib, Class: schemas.ClassState}, client.WithRequestID("unmapped"))
	c := w.consumers[0]
	for claim, name := range map[string]string{r.Handle.Claim: "unmapped", w.claims["unclaimed"]: "unclaimed"} {
		if got := c.tell(order{Do: "map", Claims: []string{claim}, Seed: 1 << 40, Write: true}).IDs[0]; got != w.ids[name] {
			w.t.Errorf("the claim of %s maps %s, want %s", name, got, w.ids[name])
		}
	}
	c.again()
}

// retries sends what was under way again: it is served.
func (w *world) retries() {
	ctx, cancel := context.WithTimeout(w.n.ctx, patience)
	defer cancel()
	ops := []string{}
	for _, id := range w.queued {
		ops = append(ops, w.pending(id, schemas.ActionAllocate, w.waits(), schemas.StatusQueued))
	}
	// The load waits behind them if the bytes of the one that was undone are not confirmed yet.
	load := w.pending("slow", schemas.ActionLoadModel, w.slow(filepath.Join(w.n.settings.Dir, "models", "slow.safetensors")), schemas.StatusRunning, schemas.StatusQueued)
	must[schemas.DeallocateReply](w.n, w.c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: w.ids["filler"]})
	delete(w.ids, "filler")
	for i, op := range ops {
		var r schemas.AllocateReply
		if err := w.c.Await(ctx, op, &r, nil); err != nil {
			w.t.Fatalf("%s: %v", w.queued[i], err)
		}
		must[schemas.DeallocateReply](w.n, w.c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: r.AllocationID})
	}
	var l schemas.LoadModelReply
	if err := w.c.Await(ctx, load, &l, nil); err != nil || !l.Loaded {
		w.t.Fatalf("the load again: %v %+v", err, l)
	}
	w.reader.tell(order{Do: "map", Claims: []string{l.Handle.Claim}, Model: slowBytes, Seed: 99})
	w.reader.again()
}

// releaseAll lets go of everything: nothing is left, and the vault ends with the node.
func (w *world) releaseAll() {
	for _, c := range append(w.consumers, w.reader) {
		c.sound()
		c.tell(order{Do: "unmap"})
	}
	for name, id := range w.ids {
		if len(name) > 5 && name[:5] == "load-" {
			continue
		}
		if r := must[schemas.DeallocateReply](w.n, w.c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id}); !r.Confirmed {
			w.t.Fatalf("%s is not confirmed: %+v", name, r)
		}
	}
	if r := must[schemas.UnloadModelReply](w.n, w.c, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: schemas.ModelNameAll, Force: true}); !r.Confirmed || len(r.ModelsUnloaded) != modelCount+1 {
		w.t.Fatalf("%d models unloaded: %+v", len(r.ModelsUnloaded), r)
	}
	for d, b := range balanced(w.n, w.c, w.k) {
		if b.own() != 0 || len(b.Grants) != 0 {
			w.t.Errorf("%s is not empty: %+v", d, b)
		}
	}
	if end := w.n.stop(); end.Grants != 0 {
		w.t.Errorf("stays: %+v", end)
	}
	w.k.awaitEnd()
}

package crashtest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/isobar-project/isobar/bus/client"
	dataclient "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// points are where a node is killed: at samples of its occurrences in a short run, else at
// each step-th. Of the stores there are thousands, and a test in this process takes all.
var points = []struct {
	name    string
	samples []int
	step    int
}{
	{"vault.put.before", []int{1, 5}, 1},
	{"vault.put.after", []int{6}, 1},
	{"ledger.store", []int{1, 150, 700}, 17},
	{"model.commit.before", []int{1}, 1},
	{"model.commit.after", []int{1}, 1},
	{"reply.before", []int{3}, 1},
	{"reply.after", []int{2, 5}, 1},
}

// A node that dies at any of its points leaves what the next one can go on with, and a
// client that says everything again gets everything once.
func TestKillAtEveryPoint(t *testing.T) {
	for _, p := range points {
		t.Run(p.name, func(t *testing.T) {
			if !*full {
				for _, n := range p.samples {
					killAt(t, p.name, n)
				}
				return
			}
			n := 1
			for killAt(t, p.name, n) {
				n += p.step
			}
			t.Logf("| crash at %s | fewer than %d occurrences | one in %d taken |", p.name, n, p.step)
		})
	}
}

// script is what a client does, command by command; with every command goes a request_id.
type script struct {
	t     *testing.T
	n     *nodeProcess
	c     *client.Client
	data  *dataclient.Client
	got   map[string]string // allocations by request_id, of the lives before this one too
	path  string
	model int64
	// unloads: the model's unload was sent, in this life or one before it.
	unloads bool
}

var errDied = errors.New("the node died")

// run says everything from the beginning.
func (s *script) run() error {
	steps := []func() error{
		func() error { return s.allocate("a", 1*mib) },
		func() error { return s.allocate("b", 20*mib) },
		func() error { return s.load("m") },
		func() error { return s.mapped("a") },
		func() error { return s.deallocate("end-b", "b") },
		func() error { return s.allocate("c", 20*mib) },
		func() error { return s.unload("end-m") },
		func() error { return s.deallocate("end-c", "c") },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			// A connection's end is seen before the process's: only an answer is not one.
			var answered *schemas.Error
			if !errors.As(err, &answered) || answered.Code == schemas.CodeNoNode {
				s.n.awaitEnd()
			}
			if s.n.ctx.Err() != nil {
				return errDied
			}
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// same notes an allocation, and that a request_id never has two.
func (s *script) same(request, id string) {
	s.t.Helper()
	if old := s.got[request]; old != "" && old != id {
		s.t.Fatalf("request %s was granted %s, and then %s", request, old, id)
	}
	s.got[request] = id
}

func (s *script) allocate(request string, size int64) error {
	r, err := call[schemas.AllocateReply](s.n, s.c, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: size, Class: schemas.ClassState}, client.WithRequestID(request))
	if err == nil {
		s.same(request, r.AllocationID)
	}
	return err
}

func (s *script) load(request string) error {
	r, err := call[schemas.LoadModelReply](s.n, s.c, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", Path: s.path}, client.WithRequestID(request))
	switch {
	case err == nil:
		s.same(request, r.AllocationIDs[0])
	case s.unloads && errors.Is(err, schemas.Errorf(schemas.CodeStaleHandle, "")):
		return nil // the first outcome is remembered, and what it loaded has been unloaded since
	}
	return err
}

// mapped maps an allocation, writes to it, and reads what an earlier life wrote.
func (s *script) mapped(request string) error {
	h, err := call[schemas.GetHandleReply](s.n, s.c, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: s.got[request]})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.n.ctx, patience)
	defer cancel()
	if s.data == nil {
		if s.data, err = dataclient.Dial(ctx, dataclient.Config{SocketPath: h.Handle.DataSocket, Name: "script"}); err != nil {
			return err
		}
	}
	m, err := s.data.Map(ctx, h.Handle.Claim, dataclient.ReadWrite)
	if err != nil {
		return err
	}
	b := m.Segments[0].Bytes
	if old := b[0]; old != 0 && old != 42 {
		return fmt.Errorf("the memory has %d", old)
	}
	b[0] = 42
	return s.data.Unmap(ctx, m)
}

func (s *script) deallocate(request, what string) error {
	_, err := call[schemas.DeallocateReply](s.n, s.c, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: s.got[what]}, client.WithRequestID(request))
	return err
}

func (s *script) unload(request string) error {
	s.unloads = true
	_, err := call[schemas.UnloadModelReply](s.n, s.c, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m"}, client.WithRequestID(request))
	return err
}

// killAt runs the script against a node that dies at the n-th occurrence of a point, and
// again against its successor. It reports whether the node died.
func killAt(t *testing.T, point string, n int) bool {
	t.Helper()
	dir := place(t)
	s := &script{t: t, got: map[string]string{}, path: filepath.Join(dir, "models", "m.safetensors"), model: 512 << 10}
	if err := weightstest.Sized(s.model, 5).WriteSafetensors(s.path); err != nil {
		t.Fatal(err)
	}
	life := settings{Dir: dir, Devices: []node.DeviceSpec{{Kind: node.DeviceRAM, ID: "ram-0", Bytes: 64 * mib}}, Crash: point, CrashAt: n}
	s.n = launch(t, life)
	died := s.n.hello.Err != ""
	if !died {
		s.c = s.n.client()
		switch err := s.run(); {
		case errors.Is(err, errDied):
			died = true
		case err != nil:
			t.Fatalf("%s %d: %v", point, n, err)
		}
		s.c.Close() // the session stays: it resumes
	}
	s.n.kill()
	life.Crash = ""
	s.n = start(t, life)
	s.c = s.n.client()
	k := vaultOf(t, dir)
	if err := s.run(); err != nil {
		t.Fatalf("%s %d, again: %v", point, n, err)
	}
	s.data.Close()
	b := balanced(s.n, s.c, k)["ram-0"]
	if a := b.Grants[s.got["a"]]; len(b.Grants) != 1 || a.GrantedBytes != mib || b.own() != mib {
		t.Fatalf("%s %d: left are %+v", point, n, b)
	}
	if err := s.deallocate("end-a", "a"); err != nil {
		t.Fatalf("%s %d: %v", point, n, err)
	}
	if end := s.n.stop(); end.Grants != 0 {
		t.Fatalf("%s %d: stays %+v", point, n, end)
	}
	k.awaitEnd()
	return died
}

package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// model is a file that we wrote, whose every byte is known.
type model struct {
	name, path string
	spec       weightstest.Spec
}

// writeModels writes a few models of different sizes and both formats.
func writeModels(dir string) ([]model, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var out []model
	for i, bytes := range []int64{6 * mib, 20 * mib, 34 * mib, 50 * mib} {
		m := model{name: fmt.Sprintf("model-%d", i), spec: weightstest.Sized(bytes, uint64(i)+1)}
		var err error
		if i%2 == 0 {
			m.path = filepath.Join(dir, m.name+".safetensors")
			err = m.spec.WriteSafetensors(m.path)
		} else {
			m.path = filepath.Join(dir, m.name+".gguf")
			err = m.spec.WriteGGUF(m.path)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// readModels loads models, reads them, refers to them and unloads them. Each tenant has its own.
func (s *soak) readModels(ctx context.Context, r *rand.Rand, t *tenant) {
	// A session of its own: a session maps a model once.
	d, err := data.Dial(ctx, data.Config{SocketPath: s.socket, Name: "bus-test models", RetryTo: 50 * time.Millisecond})
	if err != nil {
		if ctx.Err() == nil && !s.truth.disturbed(time.Now()) {
			s.truth.violate("models", "%v", err)
		}
		return
	}
	defer d.Close()
	for pause(ctx, time.Duration(r.Int64N(int64(100*time.Millisecond)))) {
		m := s.models[r.IntN(len(s.models))]
		switch r.IntN(9) {
		case 0:
			s.command(t, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: m.name}, nil, schemas.CodeModelNotFound, schemas.CodeModelInUse)
		case 1:
			s.refer(ctx, t, m)
		case 2:
			s.offer(ctx, r, t, d, m)
		case 3:
			s.cancelLoad(ctx, r, t, m)
		default:
			s.readOne(ctx, r, t, d, m, &schemas.LoadModelRequest{Name: m.name, Path: m.path})
		}
	}
}

// command does one command and judges its outcome.
func (s *soak) command(t *tenant, a schemas.Action, in, out any, may ...schemas.Code) error {
	begun := time.Now()
	ctx, stop := context.WithTimeout(context.Background(), callTime)
	defer stop()
	err := t.bus.Do(ctx, a, in, out, nil, client.WithWait(2*time.Second))
	s.truth.judge(begun, string(a), err, may...)
	return err
}

// referLease is how long a reference lasts whose release was lost.
const referLease = 10 * time.Second

// refer acquires a model, by lease, and releases it.
func (s *soak) refer(ctx context.Context, t *tenant, m model) {
	lease, begun := int64(referLease/time.Second), time.Now()
	var got schemas.AcquireModelReply
	if s.command(t, schemas.ActionAcquireModel, &schemas.AcquireModelRequest{Name: m.name, LeaseSeconds: &lease}, &got,
		schemas.CodeModelNotFound, schemas.CodeOutOfMemory, schemas.CodeCancelled) != nil {
		return
	}
	pause(ctx, 50*time.Millisecond)
	// While it is referred to nobody unloads it.
	err := s.command(t, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: m.name}, nil, schemas.CodeModelInUse)
	if err == nil && !s.truth.disturbed(begun) && time.Since(begun) < 5*time.Second {
		s.truth.violate("models", "%s was unloaded while %s referred to it", m.name, got.ReferenceID)
	}
	s.command(t, schemas.ActionReleaseModel, &schemas.ReleaseModelRequest{ReferenceID: got.ReferenceID}, nil, schemas.CodeModelNotFound, schemas.CodeStaleHandle)
}

// offer has a model loaded from a file that we opened ourselves, under a name of its own.
func (s *soak) offer(ctx context.Context, r *rand.Rand, t *tenant, d *data.Client, m model) {
	f, err := os.Open(m.path)
	if err != nil {
		s.truth.violate("offer", "%v", err)
		return
	}
	defer f.Close()
	begun := time.Now()
	call, stop := context.WithTimeout(context.Background(), callTime)
	claim, err := d.Offer(call, m.name, f)
	stop()
	s.truth.judge(begun, "offer", err)
	if err != nil {
		return
	}
	name := "offered-" + m.name
	s.readOne(ctx, r, t, d, m, &schemas.LoadModelRequest{Name: name, FileClaim: claim})
	if r.IntN(2) == 0 {
		s.command(t, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: name}, nil, schemas.CodeModelNotFound, schemas.CodeModelInUse)
	}
}

// cancelLoad begins a load and cancels it: it is loaded, or nothing of it is left.
func (s *soak) cancelLoad(ctx context.Context, r *rand.Rand, t *tenant, m model) {
	patience, begun := int64(3), time.Now()
	call, stop := context.WithTimeout(context.Background(), callTime)
	defer stop()
	in := &schemas.LoadModelRequest{Name: "cancelled-" + m.name, Path: m.path, DeviceID: s.devices[0], TimeoutSeconds: &patience}
	err := t.bus.Call(call, schemas.ActionLoadModel, in, nil, client.WithWait(0))
	var pending *client.PendingError
	if !errors.As(err, &pending) {
		s.truth.judge(begun, "load to be cancelled", err, schemas.CodeOutOfMemory, schemas.CodeStaleHandle, schemas.CodeCancelled)
		return
	}
	pause(ctx, time.Duration(r.Int64N(int64(20*time.Millisecond))))
	var got schemas.CancelOperationReply
	err = t.bus.Call(call, schemas.ActionCancelOperation, &schemas.CancelOperationRequest{OperationID: pending.OperationID}, &got, client.WithWait(callTime/2))
	s.truth.judge(begun, "cancel a load", err, schemas.CodeOperationNotFound)
	if err == nil {
		s.truth.count("cancel a load", string(got.Operation.Status))
	}
	s.command(t, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: in.Name}, nil, schemas.CodeModelNotFound, schemas.CodeModelInUse)
}

// readOne loads a model, maps it read-only and compares a tensor, twice.
func (s *soak) readOne(ctx context.Context, r *rand.Rand, t *tenant, d *data.Client, m model, in *schemas.LoadModelRequest) {
	var got schemas.LoadModelReply
	patience := int64(3)
	in.DeviceID, in.TimeoutSeconds = s.devices[0], &patience
	if s.command(t, schemas.ActionLoadModel, in, &got,
		schemas.CodeOutOfMemory, schemas.CodeModelInUse, schemas.CodeModelNotFound,
		schemas.CodeCancelled,            // an unload by another ends a load
		schemas.CodeStaleHandle) != nil { // or comes before its outcome is fetched
		return
	}
	if got.Handle == nil {
		s.truth.violate("models", "%s was loaded, and there is no handle", m.name)
		return
	}
	begun := time.Now()
	call, stop := context.WithTimeout(context.Background(), callTime)
	mapping, err := d.Map(call, got.Handle.Claim, data.ReadOnly)
	stop()
	if err != nil {
		// A claim holds no model: another may have unloaded it, or made room.
		s.truth.judge(begun, "map a model", err, schemas.CodeStaleHandle, schemas.CodeModelNotFound, schemas.CodeAllocationNotFound)
		return
	}
	s.truth.count("map a model", "")
	for range 2 {
		if err := m.compare(r, mapping); err != nil {
			s.truth.violate("models", "%v", err)
		}
		pause(ctx, time.Duration(r.Int64N(int64(80*time.Millisecond))))
	}
	call, stop = context.WithTimeout(context.Background(), callTime)
	defer stop()
	s.truth.judge(begun, "unmap a model", d.Unmap(call, mapping))
}

// compare looks at one tensor.
func (m model) compare(r *rand.Rand, mapping *data.Mapping) error {
	i := r.IntN(len(m.spec.Tensors))
	b := mapping.Tensor(m.spec.Tensors[i].Name)
	want, err := m.spec.Tensors[i].Bytes()
	if err != nil {
		return err
	}
	if int64(len(b)) != want {
		return fmt.Errorf("%s: tensor %s has %d bytes, not %d", m.name, m.spec.Tensors[i].Name, len(b), want)
	}
	if err := m.spec.Check(i, 0, b); err != nil {
		return errors.Join(fmt.Errorf("%s is not what was loaded", m.name), err)
	}
	return nil
}

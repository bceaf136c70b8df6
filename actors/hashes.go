package actors

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
)

// sums compares tensors of a copy with the hashes that a client has of them, nil where all are as
// they should be. For that no file is needed: the bytes are read back from the device.
func (t *transferActor) sums(ctx context.Context, hashes []schemas.TensorHash, m *catalog.Model, d *deviceActor, segments []device.Segment) *schemas.Error {
	if len(hashes) == 0 {
		return nil
	}
	at := make(map[string]*schemas.Tensor, len(m.Tensors))
	for i := range m.Tensors {
		at[m.Tensors[i].Name] = &m.Tensors[i]
	}
	for _, h := range hashes {
		if at[h.Tensor] == nil {
			return schemas.Errorf(schemas.CodeInvalidRequest, "model %q has no tensor %q: get_model_info with include_tensors lists them", m.Name, h.Tensor).
				With("field", "hashes").With("tensor", h.Tensor)
		}
	}
	workers := max(1, min(t.house.cfg.LoadWorkers, len(hashes)))
	t.house.cfg.Blocking(workers)
	defer t.house.cfg.Blocking(-workers)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			b := make([]byte, stageBytes)
			for i := next.Add(1) - 1; int(i) < len(hashes); i = next.Add(1) - 1 {
				if err := sum(ctx, b, &hashes[i], at[hashes[i].Tensor], m, d, segments); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	all.Wait()
	err := context.Cause(ctx)
	if err == nil {
		return nil
	}
	t.house.suspect(err)
	var known *schemas.Error
	if errors.As(err, &known) {
		if known.Code == schemas.CodeInvalidModel {
			t.house.log.Error("a model is not what its hashes say", "model", m.Name, "device", d.id, "tensor", known.Details["tensor"])
		}
		return known
	}
	return modelError(err)
}

// sum compares one tensor with its hash, by way of b.
func sum(ctx context.Context, b []byte, want *schemas.TensorHash, tn *schemas.Tensor, m *catalog.Model, d *deviceActor, segments []device.Segment) error {
	h := sha256.New()
	for off := int64(0); off < tn.SizeBytes; off += stageBytes {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		part := b[:min(stageBytes, tn.SizeBytes-off)]
		if err := d.driver.Read(segments[tn.Segment], tn.Offset+off, part); err != nil {
			return err
		}
		h.Write(part)
	}
	if is := h.Sum(nil); !bytes.Equal(is, want.SHA256[:]) {
		return schemas.Errorf(schemas.CodeInvalidModel, "tensor %q of model %q on %s has not the bytes that its hash says: it is another file's, or "+
			"a process that maps the model has written there, or the device's memory has failed", tn.Name, m.Name, d.id).
			With("device_id", d.id).With("tensor", tn.Name).With("sha256", hex.EncodeToString(is))
	}
	return nil
}

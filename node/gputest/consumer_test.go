package gputest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// patience is how long anything may take before a test gives up. It only ever passes where
// something is broken.
const patience = 60 * time.Second

// order is what a test tells a consumer.
type order struct {
	Do    string // dial, map, write, check, model, unmap, forget, filled, resumed
	Where string // dial: the data socket
	Claim string
	Model bool // map: the claim is of a model
	Forge bool // map: as if it were memory to be written
	ID    string
	Seed  byte
	Bytes int64 // model: its size; the seed is its seed
}

type answer struct {
	Err     string
	Session string
	ID      string
	Resumed int
	Lost    []string
}

// consumer maps grants as any client does: it imports every segment with the GPU's driver.
type consumer struct {
	c       *client.Client
	gpus    map[string]device.Driver // by UUID
	held    map[string]*imported
	resumed chan client.Resumption
}

// imported is a grant in this process.
type imported struct {
	m    *client.Mapping
	d    device.Driver
	segs []device.Segment
}

func runConsumer(dir string) int {
	x, err := newConsumer(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if in.Decode(&o) != nil {
			return 0
		}
		a, err := x.obey(o)
		if err != nil {
			a.Err = err.Error()
		}
		out.Encode(a)
	}
}

func newConsumer(dir string) (*consumer, error) {
	if _, err := openFake(dir); err != nil {
		return nil, err
	}
	r, err := load("", "")
	if err != nil {
		return nil, err
	}
	gpus, err := r.GPUs()
	if err != nil {
		return nil, err
	}
	x := &consumer{gpus: map[string]device.Driver{}, held: map[string]*imported{}, resumed: make(chan client.Resumption, 16)}
	for _, g := range gpus {
		id := fmt.Sprint("gpu-", g.Ordinal)
		if x.gpus[g.UUID], err = r.Open(id, map[string]int{id: g.Ordinal}, clock.Real()); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (x *consumer) obey(o order) (a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h := x.held[o.ID]
	if h == nil && slices.Contains([]string{"write", "check", "model", "unmap", "forget", "filled"}, o.Do) {
		return a, fmt.Errorf("nothing is mapped of %s", o.ID)
	}
	switch o.Do {
	case "dial":
		x.c, err = client.Dial(ctx, client.Config{SocketPath: o.Where, Name: "gputest", OnResume: func(r client.Resumption) { x.resumed <- r }})
		if err == nil {
			a.Session = x.c.Session().ID
		}
	case "map":
		a.ID, err = x.add(ctx, o.Claim, o.Model, o.Forge)
	case "write":
		err = h.each(func(s device.Segment, off, n int64) error {
			return h.d.Write(s, off, bytes.Repeat([]byte{o.Seed}, int(n)))
		})
	case "check":
		err = h.each(func(s device.Segment, off, n int64) error {
			b := make([]byte, n)
			if err := h.d.Read(s, off, b); err != nil {
				return err
			}
			if !bytes.Equal(b, bytes.Repeat([]byte{o.Seed}, int(n))) {
				return fmt.Errorf("it reads %d at first, not %d everywhere", b[0], o.Seed)
			}
			return nil
		})
	case "model":
		err = h.model(weightstest.Sized(o.Bytes, uint64(o.Seed)))
	case "unmap":
		delete(x.held, o.ID)
		err = errors.Join(h.letGo(), x.c.Unmap(ctx, h.m))
	case "filled": // the seed in the first of its bytes, and nothing behind
		err = h.filled(o.Bytes, o.Seed)
	case "forget": // it says that it has unmapped, and has not
		err = x.c.Unmap(ctx, h.m)
	case "resumed":
		select {
		case r := <-x.resumed:
			if a.Lost = r.Lost; r.Resumed {
				a.Resumed++
			}
			err = r.Err
		case <-ctx.Done():
			err = errors.New("the session was not resumed")
		}
	}
	return a, err
}

// add redeems a claim and imports what it stands for.
func (x *consumer) add(ctx context.Context, claim string, model, forge bool) (string, error) {
	mode := client.ReadWrite
	if model {
		mode = client.ReadOnly
	}
	m, err := x.c.Map(ctx, claim, mode)
	if err != nil {
		return "", err
	}
	h := &imported{m: m, d: x.gpus[m.DeviceUUID]}
	if h.d == nil {
		return "", fmt.Errorf("memory of kind %s of GPU %q, which is not here", m.Kind, m.DeviceUUID)
	}
	for i := range m.Segments {
		f, err := own(m.Segments[i].File)
		if err != nil {
			return "", err
		}
		s, err := h.d.Import(f, m.Segments[i].SegmentBytes, device.ImportOptions{Weights: model && !forge, Sealed: model && !forge})
		if err != nil {
			return "", err
		}
		h.segs = append(h.segs, s)
	}
	x.held[m.AllocationID] = h
	return m.AllocationID, nil
}

// own duplicates a descriptor: the mapping's is closed with it.
func own(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// each calls f with the grant's part of each segment, a MiB at a time.
func (h *imported) each(f func(s device.Segment, off, n int64) error) error {
	for i, s := range h.segs {
		from := h.m.Segments[i]
		for at := int64(0); at < from.SizeBytes; at += mib {
			if err := f(s, from.Offset+at, min(mib, from.SizeBytes-at)); err != nil {
				return err
			}
		}
	}
	return nil
}

// model checks every tensor of a model.
func (h *imported) model(spec weightstest.Spec) error {
	if len(h.m.Tensors) != len(spec.Tensors) {
		return fmt.Errorf("%d tensors, not %d", len(h.m.Tensors), len(spec.Tensors))
	}
	for i, want := range spec.Tensors {
		for _, t := range h.m.Tensors {
			if t.Name != want.Name {
				continue
			}
			b := make([]byte, t.SizeBytes)
			if err := h.d.Read(h.segs[t.Segment], t.Offset, b); err != nil {
				return err
			}
			if err := spec.Check(i, 0, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// filled checks all of the segments: the grant's bytes are the seed, and what is behind them is
// zero.
func (h *imported) filled(n int64, seed byte) error {
	for i, s := range h.segs {
		b := make([]byte, s.Bytes())
		if err := h.d.Read(s, 0, b); err != nil {
			return err
		}
		most := int(min(n, s.Bytes()))
		n -= int64(most)
		if at := slices.IndexFunc(b[:most], func(x byte) bool { return x != seed }); at >= 0 {
			return fmt.Errorf("byte %d of segment %d is %d, not %d", at, i, b[at], seed)
		}
		if at := slices.IndexFunc(b[most:], func(x byte) bool { return x != 0 }); at >= 0 {
			return fmt.Errorf("byte %d of segment %d is %d, which nobody has written", most+at, i, b[most+at])
		}
	}
	return nil
}

func (h *imported) letGo() (err error) {
	for _, s := range h.segs {
		gone := h.d.Destroy(s)
		if owed := (*device.OwedError)(nil); errors.As(gone, &owed) {
			gone = nil // the node has it, as it should
		}
		err = errors.Join(err, gone)
	}
	return err
}

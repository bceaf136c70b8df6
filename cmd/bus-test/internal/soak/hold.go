package soak

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/consumer"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/schemas"
)

// callTime bounds one command with its retries; persistTime how long the outcome of one that
// may have been done is asked for again.
const (
	callTime    = 30 * time.Second
	persistTime = 90 * time.Second
)

// allocate asks until the outcome is known: a grant that nobody knows of would never be given
// back. It goes on after the load has ended.
func (s *soak) allocate(t *tenant, in *schemas.AllocateRequest, id string) (*schemas.AllocateReply, error) {
	begun := time.Now()
	for {
		var got schemas.AllocateReply
		ctx, stop := context.WithTimeout(context.Background(), callTime)
		err := t.bus.Do(ctx, schemas.ActionAllocate, in, &got, nil, client.WithRequestID(id))
		stop()
		if !uncertain(err) || time.Since(begun) > persistTime {
			s.truth.judge(begun, "allocate", err, schemas.CodeOutOfMemory, schemas.CodeOperationNotFound)
			return &got, err
		}
		s.truth.count("allocate asked again", "")
		pause(context.Background(), 50*time.Millisecond)
	}
}

// free gives a grant back, asking until that is known.
func (s *soak) free(t *tenant, id string, may ...schemas.Code) {
	begun := time.Now()
	for {
		ctx, stop := context.WithTimeout(context.Background(), callTime)
		err := t.bus.Do(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id}, nil, nil)
		stop()
		// An unmap that no node heard of is said again when the session comes back.
		unheard := code(err) == schemas.CodeAllocationInUse && s.truth.disturbed(begun)
		if !uncertain(err) && !unheard || time.Since(begun) > persistTime {
			s.truth.judge(begun, "deallocate", err, may...)
			return
		}
		pause(context.Background(), 50*time.Millisecond)
	}
}

// hold is a client that takes memory, writes to it, looks after it and gives it back.
func (s *soak) hold(ctx context.Context, r *rand.Rand, t *tenant) {
	for ctx.Err() == nil {
		in := &schemas.AllocateRequest{DeviceID: s.devices[r.IntN(len(s.devices))], SizeBytes: size(r), Purpose: "soak", Clear: r.IntN(10) == 0}
		patience := int64(r.IntN(8))
		in.TimeoutSeconds = &patience
		if r.IntN(4) == 0 {
			lease := int64(60)
			in.LeaseSeconds = &lease
		}
		s.oneGrant(ctx, r, t, in)
	}
}

// size is anything from a page to 40 MiB, small ones more often.
func size(r *rand.Rand) int64 {
	switch r.IntN(4) {
	case 0:
		return 1 + r.Int64N(mib)
	case 1:
		return mib
	case 2:
		return 1 + r.Int64N(8*mib)
	}
	return 1 + r.Int64N(40*mib)
}

func (s *soak) oneGrant(ctx context.Context, r *rand.Rand, t *tenant, in *schemas.AllocateRequest) {
	id := uuid.NewString()
	got, err := s.allocate(t, in, id)
	if err != nil {
		pause(ctx, 20*time.Millisecond)
		return
	}
	if r.IntN(8) == 0 {
		s.again(t, in, id, got.AllocationID)
	}
	g, err := s.mapGrant(t, got, in)
	if err != nil {
		s.free(t, got.AllocationID, schemas.CodeAllocationNotFound)
		return
	}
	for range 1 + r.IntN(3) {
		pause(ctx, time.Duration(r.Int64N(int64(150*time.Millisecond))))
		if err := g.check(); err != nil {
			s.truth.violate("pattern", "%v", err)
			break
		}
	}
	s.drop(t, g)
}

// again repeats a request_id: the outcome must be the first one.
func (s *soak) again(t *tenant, in *schemas.AllocateRequest, id, want string) {
	got, err := s.allocate(t, in, id)
	switch {
	case err != nil:
		s.truth.violate("retry", "the request %s was granted as %s and then: %v", id, want, err)
	case got.AllocationID != want || !got.Replayed:
		s.truth.violate("retry", "the request %s was granted as %s, then as %s (replayed %t)", id, want, got.AllocationID, got.Replayed)
	default:
		s.truth.count("retry", "")
	}
}

// grant is memory that we hold.
type grant struct {
	id      string
	seq     uint64
	tag     uint64
	mapping *data.Mapping
}

// sequence makes every grant's pattern its own.
type sequence struct{ n atomic.Uint64 }

// mapClaim maps a grant by a claim; "" has one made. A claim that went with a node is replaced.
func (s *soak) mapClaim(t *tenant, id, claim string, mode data.Mode) (*data.Mapping, error) {
	begun := time.Now()
	for {
		var m *data.Mapping
		err := errNoClaim
		if claim != "" {
			ctx, stop := context.WithTimeout(context.Background(), callTime)
			m, err = t.data.Map(ctx, claim, mode)
			stop()
		}
		if err == nil {
			s.truth.count("map", "")
			return m, nil
		}
		if claim != "" && !s.truth.disturbed(begun) || time.Since(begun) > persistTime {
			s.truth.judge(begun, "map", err)
			return nil, err
		}
		var h schemas.GetHandleReply
		ctx, stop := context.WithTimeout(context.Background(), callTime)
		herr := t.bus.Call(ctx, schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: id}, &h)
		stop()
		if code(herr) == schemas.CodeAllocationNotFound {
			s.truth.violate("map", "the grant %s is gone", id)
			return nil, errors.Join(err, herr)
		}
		if herr == nil {
			claim = h.Handle.Claim
			continue
		}
		if !uncertain(herr) {
			s.truth.judge(begun, "get_handle", herr)
			return nil, herr
		}
		pause(context.Background(), 20*time.Millisecond)
	}
}

// errNoClaim asks for a claim.
var errNoClaim = errors.New("there is no claim yet")

// mapGrant maps, looks at what is in the memory, and writes the pattern.
func (s *soak) mapGrant(t *tenant, got *schemas.AllocateReply, in *schemas.AllocateRequest) (*grant, error) {
	m, err := s.mapClaim(t, got.AllocationID, got.Handle.Claim, data.ReadWrite)
	if err != nil {
		return nil, err
	}
	s.truth.hold(m.AllocationID)
	g := &grant{id: m.AllocationID, seq: s.truth.seq.n.Add(1), tag: t.tag, mapping: m}
	if m.AllocationID != got.AllocationID {
		s.truth.violate("map", "the claim of %s mapped %s", got.AllocationID, m.AllocationID)
	}
	if err := g.arrive(in.Clear); err != nil {
		s.truth.violate("arrival", "%s of %s, %d bytes on %s: %v", t.name, got.AllocatedAt.Format("15:04:05.000"), in.SizeBytes, got.DeviceID, err)
	}
	g.write()
	return g, nil
}

// drop unmaps and gives back.
func (s *soak) drop(t *tenant, g *grant) {
	begun := time.Now()
	s.truth.release(g.id)
	ctx, stop := context.WithTimeout(context.Background(), callTime)
	err := t.data.Unmap(ctx, g.mapping)
	stop()
	s.truth.judge(begun, "unmap", err)
	may := []schemas.Code{}
	if s.truth.disturbed(begun) {
		may = append(may, schemas.CodeAllocationNotFound)
	}
	s.free(t, g.id, may...)
}

// A pattern is four words at the beginning of every page.
const magic = consumer.Magic

// pages calls f with the first words of every page, and the page's number.
func (g *grant) pages(f func(b []byte, page uint64) error) error {
	page := uint64(0)
	for _, seg := range g.mapping.Segments {
		for i := 0; i+32 <= len(seg.Bytes); i += os.Getpagesize() {
			if err := f(seg.Bytes[i:i+32], page); err != nil {
				return err
			}
			page++
		}
	}
	return nil
}

// arrive looks at memory as it comes: zero, or our tenant's own from before.
func (g *grant) arrive(cleared bool) error {
	return g.pages(func(b []byte, page uint64) error {
		first, tag := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		switch {
		case first == 0 && tag == 0:
			return nil
		case cleared:
			return fmt.Errorf("grant %s, page %d: asked for as cleared, and has %x", g.id, page, b)
		case first == magic && tag == g.tag, first == tag && bytes.Count(b, []byte{fillByte(g.tag)}) == len(b):
			return nil
		}
		return fmt.Errorf("grant %s, page %d: memory of another owner: %x", g.id, page, b)
	})
}

func (g *grant) write() {
	_ = g.pages(func(b []byte, page uint64) error {
		for i, w := range [4]uint64{magic, g.tag, g.seq, page} {
			binary.LittleEndian.PutUint64(b[8*i:], w)
		}
		return nil
	})
}

// check looks whether the pattern is there.
func (g *grant) check() error {
	return g.pages(func(b []byte, page uint64) error {
		for i, w := range [4]uint64{magic, g.tag, g.seq, page} {
			if got := binary.LittleEndian.Uint64(b[8*i:]); got != w {
				return fmt.Errorf("grant %s (%d), page %d, word %d: %x instead of %x", g.id, g.seq, page, i, got, w)
			}
		}
		return nil
	})
}

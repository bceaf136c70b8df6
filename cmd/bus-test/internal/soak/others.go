package soak

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/consumer"
	"github.com/isobar-project/isobar/schemas"
)

// goneTime is how long what has no owner any more may stay; goneTimeDisturbed the same where
// the node was killed meanwhile and waits for sessions to come back.
const (
	goneTime          = 15 * time.Second
	goneTimeDisturbed = 75 * time.Second
)

// gone waits until a grant is no more.
func (s *soak) gone(t *tenant, id, why string) {
	begun := time.Now()
	for {
		ctx, stop := context.WithTimeout(context.Background(), callTime)
		var r schemas.GetAllocationReply
		err := t.bus.Call(ctx, schemas.ActionGetAllocation, &schemas.GetAllocationRequest{AllocationID: id}, &r)
		stop()
		if code(err) == schemas.CodeAllocationNotFound {
			s.truth.count(why, "gone")
			return
		}
		if waited := time.Since(begun); waited > goneTimeDisturbed || waited > goneTime && !s.truth.disturbed(begun) {
			s.truth.violate(why, "the grant %s is still there after %s: %+v %v", id, waited.Round(time.Second), r.Allocation, err)
			s.free(t, id, schemas.CodeAllocationNotFound)
			return
		}
		pause(context.Background(), 50*time.Millisecond)
	}
}

// lapse takes memory by lease, renews it once or not, and lets it run out.
func (s *soak) lapse(ctx context.Context, r *rand.Rand, t *tenant) {
	for ctx.Err() == nil {
		lease, patience := int64(1), int64(3)
		got, err := s.allocate(t, &schemas.AllocateRequest{DeviceID: s.devices[r.IntN(len(s.devices))], SizeBytes: size(r), LeaseSeconds: &lease,
			TimeoutSeconds: &patience, Purpose: "lease"}, uuid.NewString())
		if err != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		if r.IntN(2) == 0 && pause(ctx, 500*time.Millisecond) {
			begun := time.Now()
			call, stop := context.WithTimeout(context.Background(), callTime)
			err := t.bus.Call(call, schemas.ActionRenew, &schemas.RenewRequest{AllocationIDs: []string{got.AllocationID}, LeaseSeconds: 1}, nil)
			stop()
			// The renewal itself can come too late, on a busy machine.
			s.truth.judge(begun, "renew", err, schemas.CodeAllocationNotFound)
		}
		s.gone(t, got.AllocationID, "lease")
	}
}

// queue asks for most of a device, which others use, and cancels or waits.
func (s *soak) queue(ctx context.Context, r *rand.Rand, t *tenant) {
	for pause(ctx, time.Duration(r.Int64N(int64(300*time.Millisecond)))) {
		device := s.devices[r.IntN(len(s.devices))]
		patience := int64(1 + r.IntN(4))
		in := &schemas.AllocateRequest{DeviceID: device, SizeBytes: s.size[device] * int64(20+r.IntN(30)) / 100, TimeoutSeconds: &patience,
			Priority: r.IntN(2), Purpose: "large"}
		id, begun := uuid.NewString(), time.Now()
		call, stop := context.WithTimeout(context.Background(), callTime)
		var got schemas.AllocateReply
		err := t.bus.Call(call, schemas.ActionAllocate, in, &got, client.WithRequestID(id), client.WithWait(0))
		var pending *client.PendingError
		if errors.As(err, &pending) {
			s.truth.count("allocate", "queued")
			if r.IntN(2) == 0 {
				pause(ctx, time.Duration(r.Int64N(int64(time.Second))))
				cerr := t.bus.Call(call, schemas.ActionCancelOperation, &schemas.CancelOperationRequest{OperationID: pending.OperationID}, nil)
				s.truth.judge(begun, "cancel", cerr, schemas.CodeOperationNotFound)
			}
		}
		stop()
		// Whatever became of it: the same request_id tells.
		reply, err := s.outcome(t, in, id)
		if err == nil {
			s.free(t, reply.AllocationID, schemas.CodeAllocationNotFound)
		}
	}
}

// outcome is how a request ended that may have been cancelled.
func (s *soak) outcome(t *tenant, in *schemas.AllocateRequest, id string) (*schemas.AllocateReply, error) {
	begun := time.Now()
	for {
		var got schemas.AllocateReply
		ctx, stop := context.WithTimeout(context.Background(), callTime)
		err := t.bus.Do(ctx, schemas.ActionAllocate, in, &got, nil, client.WithRequestID(id))
		stop()
		if !uncertain(err) || time.Since(begun) > persistTime {
			s.truth.judge(begun, "allocate large", err, schemas.CodeOutOfMemory, schemas.CodeCancelled)
			return &got, err
		}
		pause(context.Background(), 50*time.Millisecond)
	}
}

// consumers has another process map memory, and kills it.
func (s *soak) consumers(ctx context.Context, r *rand.Rand, t *tenant) {
	for pause(ctx, time.Duration(r.Int64N(int64(300*time.Millisecond)))) {
		begun := time.Now()
		p, err := consumer.Start(s.o.Program, s.socket)
		if err != nil {
			if !s.truth.disturbed(begun) {
				s.truth.violate("consumer", "%v", err)
			}
			continue
		}
		s.oneConsumer(ctx, r, t, p)
	}
}

func (s *soak) oneConsumer(ctx context.Context, r *rand.Rand, t *tenant, p *consumer.Process) {
	var mapped, others []string
	for range 1 + r.IntN(3) {
		patience, begun := int64(1), time.Now()
		got, err := s.allocate(t, &schemas.AllocateRequest{DeviceID: s.devices[r.IntN(len(s.devices))], SizeBytes: size(r), TimeoutSeconds: &patience,
			Purpose: "consumer"}, uuid.NewString())
		if err != nil {
			continue
		}
		if err := p.Map(got.Handle.Claim, t.tag); err != nil {
			if !s.truth.disturbed(begun) {
				s.truth.violate("consumer", "map: %v", err)
			}
			others = append(others, got.AllocationID)
			continue
		}
		mapped = append(mapped, got.AllocationID)
	}
	pause(ctx, time.Duration(r.Int64N(int64(200*time.Millisecond))))
	if err := p.Kill(); err != nil {
		s.truth.violate("consumer", "kill: %v", err)
	}
	p.Reap()
	s.truth.count("consumer killed", "")
	for _, id := range others {
		s.free(t, id, schemas.CodeAllocationNotFound)
	}
	for _, id := range mapped {
		s.gone(t, id, "killed consumer's grant")
	}
}

package soak

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
)

// tend is an operator at work: it defragments, trims, has models released, looks back, and
// does what the node recommends.
func (s *soak) tend(ctx context.Context, r *rand.Rand, _ *tenant) {
	t := s.tenants[0] // the operator's
	for pause(ctx, time.Duration(r.Int64N(int64(400*time.Millisecond)))) {
		device := s.devices[r.IntN(len(s.devices))]
		switch r.IntN(6) {
		case 0, 1:
			s.defragment(r, t, device)
		case 2:
			s.optimize(r, t, device)
		case 3:
			target := float64(40 + r.IntN(60))
			in := &schemas.ModelOptimizeRequest{DeviceID: device, TargetUsagePercentage: &target}
			strategies := schemas.EvictionStrategy("").Names()
			in.Strategy = schemas.EvictionStrategy(strategies[r.IntN(len(strategies))])
			_ = s.surely(t, schemas.ActionModelOptimize, in, nil, "model_optimize", uuid.NewString(), schemas.CodeOutOfMemory)
		case 4:
			_ = s.query(t, schemas.ActionAnalytics, &schemas.AnalyticsRequest{DeviceID: device}, nil)
			_ = s.query(t, schemas.ActionGetStatus, &schemas.GetStatusRequest{DeviceID: device, IncludeFragmentation: true}, nil)
		default:
			s.heed(t, device)
		}
	}
}

// defragment must end with no more segments than it began with, or say what it moved.
func (s *soak) defragment(r *rand.Rand, t *tenant, device string) {
	in := &schemas.DefragmentRequest{DeviceID: device, Strategy: schemas.DefragmentIncremental}
	if r.IntN(2) == 0 {
		in.Strategy = schemas.DefragmentFull
	}
	var got schemas.DefragmentReply
	if s.surely(t, schemas.ActionDefragment, in, &got, "defragment", uuid.NewString()) != nil {
		return
	}
	if got.ReleasedBytes < 0 || got.MovedBytes < 0 || (got.Efficiency == nil) != (got.MovedBytes == 0) {
		s.truth.violate("defragment", "%+v", got)
	}
	if got.MovedBytes > 0 {
		s.truth.count("defragment", "moved bytes")
	}
}

// optimize asks for any kind of optimization that there is.
func (s *soak) optimize(r *rand.Rand, t *tenant, device string) {
	kinds := schemas.OptimizationType("").Names()
	target := float64(50 + r.IntN(50))
	in := &schemas.OptimizeRequest{DeviceID: device, OptimizationType: schemas.OptimizationType(kinds[r.IntN(len(kinds))]), TargetUsagePercentage: &target, Force: r.IntN(4) == 0}
	var got schemas.OptimizeReply
	if s.surely(t, schemas.ActionOptimize, in, &got, "optimize "+string(in.OptimizationType), uuid.NewString(), schemas.CodeOutOfMemory) == nil && got.FreedBytes < 0 {
		s.truth.violate("optimize", "%d bytes were freed", got.FreedBytes)
	}
}

// heed sends what is recommended, except what would take others' memory or move limits that
// are watched.
func (s *soak) heed(t *tenant, device string) {
	var got schemas.OptimizationRecsReply
	if s.query(t, schemas.ActionOptimizationRecs, &schemas.OptimizationRecsRequest{DeviceID: device}, &got) != nil {
		return
	}
	for _, x := range got.Recommendations {
		s.truth.count("recommended "+x.Kind, "")
		if x.Command.Action != schemas.ActionOptimize && x.Command.Action != schemas.ActionDefragment {
			continue
		}
		_ = s.surely(t, x.Command.Action, x.Command.Data, nil, "recommended "+x.Kind+" sent", uuid.NewString())
	}
}

// query asks what changes nothing, and judges the answer.
func (s *soak) query(t *tenant, a schemas.Action, in, out any) error {
	begun := time.Now()
	ctx, stop := context.WithTimeout(context.Background(), callTime)
	defer stop()
	err := t.bus.Call(ctx, a, in, out)
	s.truth.judge(begun, string(a), err)
	return err
}

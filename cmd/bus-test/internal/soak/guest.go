package soak

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/schemas"
)

// guestName is the tenant that has quotas, and that cleans up after itself.
const guestName = "green"

// quotas moves a tenant's quota on a device, has it take what it can, and all of it back at
// once. It alone acts for that tenant, so that what must be refused is known.
func (s *soak) quotas(ctx context.Context, r *rand.Rand, _ *tenant) {
	for pause(ctx, time.Duration(r.Int64N(int64(400*time.Millisecond)))) {
		device := s.devices[r.IntN(len(s.devices))]
		hard := int64(16+2*r.IntN(32)) * mib
		floor := int64(r.IntN(3)) * 4 * mib
		if s.quota(device, floor, hard) != nil {
			continue
		}
		s.oneGuest(ctx, r, device, hard)
		s.quota(device, 0, 0)
	}
	for _, d := range s.devices {
		s.quota(d, 0, 0)
	}
}

// quota sets the guest's quota; 0 is none.
func (s *soak) quota(device string, floor, hard int64) error {
	in := &schemas.SetLimitsRequest{DeviceID: device, Tenant: &schemas.TenantLimits{Name: guestName, FloorBytes: &floor, HardBytes: &hard}}
	s.truth.floors.raise(device, floor)
	// A floor may be more than the device has left, or than its limit.
	err := s.surely(s.tenants[0], schemas.ActionSetLimits, in, nil, "set a quota", uuid.NewString(), schemas.CodeInvalidRequest, schemas.CodeOutOfMemory)
	if err == nil {
		s.truth.floors.settle(device, floor)
	}
	return err
}

// oneGuest takes memory up to the quota, and gives all of it back by a cleanup.
func (s *soak) oneGuest(ctx context.Context, r *rand.Rand, device string, hard int64) {
	var held int64
	var ids []string
	for range 4 + r.IntN(8) {
		patience := int64(r.IntN(2))
		in := &schemas.AllocateRequest{DeviceID: device, SizeBytes: size(r), TimeoutSeconds: &patience, Purpose: "guest"}
		var got schemas.AllocateReply
		err := s.surely(s.guest, schemas.ActionAllocate, in, &got, "allocate within a quota", uuid.NewString(), schemas.CodeQuotaExceeded, schemas.CodeOutOfMemory)
		if err != nil {
			continue
		}
		ids = append(ids, got.AllocationID)
		if held += got.Allocation.GrantedBytes; held > hard {
			s.truth.violate("quota", "%s holds %d bytes on %s with a quota of %d", guestName, held, device, hard)
		}
		if in.SizeBytes > hard {
			s.truth.violate("quota", "%d bytes were granted with a quota of %d", in.SizeBytes, hard)
		}
		pause(ctx, time.Duration(r.Int64N(int64(20*time.Millisecond))))
	}
	if r.IntN(3) == 0 {
		for _, id := range ids {
			s.free(s.guest, id, schemas.CodeAllocationNotFound)
		}
		return
	}
	var cleaned schemas.CleanupReply
	begun := time.Now()
	err := s.surely(s.guest, schemas.ActionCleanup, &schemas.CleanupRequest{DeviceID: device, Confirm: true, Force: r.IntN(2) == 0}, &cleaned, "cleanup", uuid.NewString())
	if err == nil && cleaned.FreedBytes != held && !s.truth.disturbed(begun) {
		s.truth.violate("cleanup", "%d bytes were freed of %d", cleaned.FreedBytes, held)
	}
	for _, id := range ids {
		if err != nil {
			s.free(s.guest, id, schemas.CodeAllocationNotFound)
			continue
		}
		s.gone(s.guest, id, "cleaned grant")
	}
}

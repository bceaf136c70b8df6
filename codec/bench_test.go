package codec_test

import (
	"testing"
	"time"

	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

var allocateRequest = codec.Call{
	RequestID: "6f0c8d5e-8a4b-4d0e-9c59-0d6f1f0a7b11",
	Action:    schemas.ActionAllocate,
	Data: &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: 1 << 20, AllocationType: schemas.DeviceTypeRAM, Purpose: "kv-cache",
		LeaseSeconds: ptr(int64(60))},
}

func allocateReply() *schemas.AllocateReply {
	now := time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)
	expires := now.Add(time.Minute)
	return &schemas.AllocateReply{
		Finished: schemas.Done(), Success: true, DeviceID: "ram-0", AllocationID: "6f0c8d5e-8a4b-4d0e-9c59-0d6f1f0a7b12",
		Allocation: schemas.Allocation{
			AllocationID: "6f0c8d5e-8a4b-4d0e-9c59-0d6f1f0a7b12", Node: "node-1", DeviceID: "ram-0", SizeBytes: 1 << 20,
			GrantedBytes: 1 << 20, AllocationType: schemas.DeviceTypeRAM, Class: schemas.ClassScratch, Purpose: "kv-cache",
			Status: schemas.AllocationActive, Owner: schemas.Owner{Tenant: "default"}, LeaseExpiresAt: &expires,
			CreatedAt: now, Timestamp: now, LastUsed: now,
		},
		AllocationTimeMs: 0.0123, AvailableMemoryBytes: 1 << 30, UtilizationPercentage: 12.345, Message: "granted",
		AllocatedAt: now,
		Handle: &schemas.Handle{Kind: schemas.HandleMemfd, Node: "node-1", DataSocket: "/run/isobar/data.sock",
			Claim: "c0ffee00c0ffee00c0ffee00c0ffee00", ClaimExpiresAt: expires, SizeBytes: 1 << 20, SegmentCount: 1},
	}
}

func ptr[T any](v T) *T { return &v }

func eachFormat(b *testing.B, run func(b *testing.B, f codec.Format)) {
	for _, f := range []codec.Format{codec.JSON, codec.MsgPack} {
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			run(b, f)
		})
	}
}

func BenchmarkDecodeAllocate(b *testing.B) {
	eachFormat(b, func(b *testing.B, f codec.Format) {
		payload, err := codec.EncodeRequest(nil, f, allocateRequest)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(payload)))
		for b.Loop() {
			if _, err := codec.DecodeRequest(payload, f, schemas.ActionAllocate); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecodeGetPressure(b *testing.B) {
	payload := []byte(`{"device_id":"ram-0"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.DecodeRequest(payload, codec.JSON, schemas.ActionGetPressure); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigestAllocate(b *testing.B) {
	payload, _ := codec.EncodeRequest(nil, codec.JSON, allocateRequest)
	req, err := codec.DecodeRequest(payload, codec.JSON, schemas.ActionAllocate)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		req.Digest()
	}
}

func BenchmarkEncodeAllocateReply(b *testing.B) {
	eachFormat(b, func(b *testing.B, f codec.Format) {
		reply := codec.Reply{RequestID: "6f0c8d5e-8a4b-4d0e-9c59-0d6f1f0a7b11", Timestamp: time.Now(), Node: "node-1", Data: allocateReply()}
		var buf []byte
		for b.Loop() {
			buf = codec.EncodeReply(buf[:0], f, reply)
		}
		b.SetBytes(int64(len(buf)))
	})
}

func BenchmarkEncodeDeallocateReply(b *testing.B) {
	reply := codec.Reply{RequestID: "6f0c8d5e-8a4b-4d0e-9c59-0d6f1f0a7b11", Timestamp: time.Now(), Node: "node-1",
		Data: &schemas.DeallocateReply{Finished: schemas.Done(), Success: true, FreedBytes: 1 << 20, Confirmed: true}}
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = codec.EncodeReply(buf[:0], codec.JSON, reply)
	}
}

func BenchmarkEncodeAllocationEvent(b *testing.B) {
	batch := &schemas.AllocationBatch{}
	for range 16 {
		batch.Items = append(batch.Items, schemas.AllocationItem{Event: schemas.EventAllocated,
			AllocationID: "6f0c8d5e-8a4b-4d0e-9c59-0d6f1f0a7b12", RequestID: "6f0c8d5e-8a4b-4d0e-9c59-0d6f1f0a7b11", DeviceID: "ram-0",
			Tenant: "default", SizeBytes: 1 << 20, GrantedBytes: 1 << 20, Class: schemas.ClassScratch, Timestamp: time.Now()})
	}
	ev := &schemas.Event{Event: schemas.EventAllocated, EventID: "1", Sequence: 7, BootID: "b", Node: "node-1", Timestamp: time.Now(), Data: batch}
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = codec.EncodeEvent(buf[:0], ev)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16, "ns/item")
}

func BenchmarkGuard(b *testing.B) {
	payload, _ := codec.EncodeRequest(nil, codec.MsgPack, allocateRequest)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if err := codec.Guard(payload); err != nil {
			b.Fatal(err)
		}
	}
}

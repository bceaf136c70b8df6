package ledger_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/isobar-project/isobar/heap"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/ledgertest"
	"github.com/isobar-project/isobar/ledger/store"
)

// An image to be fuzzed is a row of records: kind (1 byte), length (2 bytes), payload.
// They are put into a sound region, so that the fuzzer need not forge checksums.
func packRecords(t testing.TB, mem []byte) []byte {
	var out []byte
	_, err := store.Open(append([]byte(nil), mem...), func(_ store.RecID, kind store.Kind, payload []byte) error {
		if len(payload) < 1<<12 { // the ballast is of no interest
			out = append(out, byte(kind))
			out = binary.LittleEndian.AppendUint16(out, uint16(len(payload)))
			out = append(out, payload...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpackRecords(t testing.TB, b []byte) []byte {
	mem := make([]byte, 1<<20)
	region, err := store.Format(mem, "device/ram-0")
	if err != nil {
		t.Fatal(err)
	}
	tx := region.Begin()
	for len(b) >= 3 {
		n := min(int(binary.LittleEndian.Uint16(b[1:])), len(b)-3)
		tx.Insert(store.Kind(b[0]), b[3:3+n])
		b = b[3+n:]
	}
	if tx.Commit() != nil {
		t.Skip("more records than fit")
	}
	return mem
}

// seedImage is the ledger of a device with some of everything.
func seedImage(t testing.TB) []byte {
	m, err := ledgertest.NewMachine(ledgertest.Settings(1<<20), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	do := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	ask := func(name string, r ledger.Request) ledger.Outcome {
		r.Ref = name
		do(m.Call(func() { m.Core.Allocate(&r, m.Now) }))
		do(m.Settle())
		return m.Final[name]
	}
	red := ledger.Owner{Tenant: "red", UID: 7}
	a := ask("a", ledger.Request{Owner: red, Class: ledger.ClassScratch, Size: 100 << 10, Lease: time.Hour, Key: "red\x00k",
		Answer: func(g *ledger.Grant) ledger.AnswerRecord {
			return ledger.AnswerRecord{Key: "red\x00k", Action: "memory.allocate", Grant: g.ID, Body: []byte(`{"success":true}`)}
		}})
	ask("b", ledger.Request{Owner: red, Class: ledger.ClassState, Size: 300 << 10, Purpose: "cache"})
	ask("c", ledger.Request{Owner: red, Class: ledger.ClassReservation, Size: 50 << 10})
	ask("d", ledger.Request{Owner: red, Class: ledger.ClassWeights, Segments: []int64{64 << 10, 5000}, Model: "llama", Unclaimed: true})
	do(m.Call(func() {
		m.Core.Map(ledger.MapRequest{Session: "s1", PID: 1001, UID: 7, Digest: ledger.DigestOf(a.Claim), Mode: ledger.ReadWrite}, m.Now)
	}))
	do(m.Settle())
	do(m.Call(func() {
		m.Core.Release(ledger.ReleaseRequest{Ref: "x", Grant: a.Grant.ID, Tenant: "red", Force: true, Why: ledger.WhyDeallocated}, m.Now)
	}))
	limit := int64(900 << 10)
	do(m.Call(func() { m.Core.SetLimits(&limit, nil, nil, m.Now) }))
	return packRecords(t, m.Mem)
}

// FuzzImage: whatever the records say, a take-over refuses the image with a typed error
// or is a device that agrees with itself.
func FuzzImage(f *testing.F) {
	seed := seedImage(f)
	f.Add(seed, uint8(0))
	f.Add(seed[:len(seed)/2], uint8(1))
	f.Add([]byte{3, 4, 0, 0xff, 0xff, 0xff, 0xff}, uint8(0))
	for i := 0; i < len(seed); i += 37 {
		bent := append([]byte(nil), seed...)
		bent[i] ^= 0x81
		f.Add(bent, uint8(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, missing uint8) {
		im, err := ledger.ReadImage(unpackRecords(t, b))
		if err != nil {
			typed(t, err)
			return
		}
		cfg := ledgertest.Settings(1 << 20)
		m, _ := ledgertest.NewMachine(cfg, 1<<20)
		cut := ledgertest.Cut{Mem: unpackRecords(t, b), Segments: map[heap.SegmentID]*ledgertest.Segment{}}
		for i, s := range im.Segments() {
			if missing>>(i%8)&1 == 0 && s.Bytes <= 1<<30 {
				cut.Segments[s.ID] = &ledgertest.Segment{Bytes: s.Bytes, Weights: s.Weights, Open: map[ledger.SessionID]int{}}
			}
		}
		next, _, err := m.TakeOver(cut)
		if err != nil {
			typed(t, err)
			return
		}
		if err := next.Settle(); err != nil {
			t.Fatal(err)
		}
		if err := next.Advance(3 * time.Second); err != nil {
			t.Fatal(err)
		}
	})
}

func typed(t *testing.T, err error) {
	t.Helper()
	var image *ledger.ImageError
	var corrupt *store.CorruptError
	if !errors.As(err, &image) && !errors.As(err, &corrupt) {
		t.Fatalf("not a typed error: %v", err)
	}
}

// FuzzAnswer: an answer's record is read back as it was written, or refused.
func FuzzAnswer(f *testing.F) {
	f.Add(ledger.EncodeAnswer(ledger.AnswerRecord{Key: "t\x00r", Action: "memory.allocate", Model: "m", Body: []byte("{}")}, 17))
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ledger.DecodeAnswer(b)
		if err != nil {
			return
		}
		if again := ledger.EncodeAnswer(a, a.At); string(again) != string(b) {
			t.Fatalf("%x is read as %+v and written as %x", b, a, again)
		}
	})
}

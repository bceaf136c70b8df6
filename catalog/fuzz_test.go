package catalog_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// FuzzImage: whatever the records of the pool's region say (kind, length, payload, one
// after the other), a take-over refuses them with a typed error or is a catalog that
// agrees with itself and can let go of everything.
func FuzzImage(f *testing.F) {
	record := func(kind byte, payload string) []byte {
		return append(binary.LittleEndian.AppendUint16([]byte{kind}, uint16(len(payload))), payload...)
	}
	model := record(1, `{"id":1,"tenant":"red","name":"m","path":"/m","content_id":"c","version":1,"bytes":10,"segments":[10],"tensors":[]}`)
	grant := uuid.UUID{15: 1}.String()
	copied := record(2, `{"model":1,"device":"ram-0","grant":"`+grant+`","granted":4096,"refs":[{"id":"r","ends":5}],"revoking":false}`)
	f.Add(append(append([]byte(nil), model...), copied...))
	f.Add(append(append(append([]byte(nil), model...), copied...), copied...))
	f.Add(record(2, `{"model":7,"refs":[null]}`))
	f.Add(append(append([]byte(nil), model...), record(2, `{"model":1,"refs":[null]}`)...))
	f.Add(record(3, string(ledger.EncodeAnswer(ledger.AnswerRecord{Key: "k"}, 3))))
	f.Add(append(append([]byte(nil), model...), model...))
	f.Add(record(9, "?"))
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := make([]byte, 1<<20)
		region, err := store.Format(mem, "pool")
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
			return // more than fits
		}
		now := ledger.Now{Boot: clock.Instant(time.Hour)}
		c, _, err := catalog.Restore(mem, policy(t), uuid.New, map[uuid.UUID]string{{15: 1}: "ram-0", {15: 2}: ""}, nil, now)
		if err != nil {
			var image *ledger.ImageError
			if !errors.As(err, &image) {
				t.Fatalf("not a typed error: %v", err)
			}
			return
		}
		check := func() {
			t.Helper()
			if err := c.Check(); err != nil {
				t.Fatal(err)
			}
		}
		check()
		c.Resume(now)
		c.Tick(now)
		check()
		c.Unload(catalog.UnloadRequest{Ref: 1, Tenant: "red", Name: "*", Force: true}, now)
		check()
	})
}

package ledger_test

import (
	"fmt"
	"log"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// A device core takes a message and the time, and says what is to be done. Here the
// memory has first to be made; a shell gives that job to a worker.
func ExampleDevice() {
	region, err := store.Format(make([]byte, 1<<20), "device/ram-0") // really a mapped memfd
	if err != nil {
		log.Fatal(err)
	}
	d := ledger.NewDevice(ledger.DeviceConfig{
		Device: "ram-0", Type: "RAM", Physical: 1 << 30,
		Rand: func(b []byte) { clear(b) }, NewID: func() uuid.UUID { return uuid.UUID{15: 1} },
	}, region)

	now := ledger.Now{Boot: 1}
	d.Allocate(&ledger.Request{Ref: "my request", Owner: ledger.Owner{Tenant: "default"}, Class: ledger.ClassScratch, Size: 64 << 20}, now)
	job := d.Take().Jobs[0]
	fmt.Println("create a segment of", job.Ranges[0].Bytes, "bytes, then say Prepared")

	d.Prepared(job.Ticket, job.Kind, nil, false, now)
	for _, o := range d.Take().Outcomes {
		fmt.Println(o.Ref, "is granted", o.Grant.Granted, "bytes as", o.Grant.ID)
	}
	fmt.Println(d.Figures().Used, "of", d.Figures().Limit, "bytes are used")
	// Output:
	// create a segment of 67108864 bytes, then say Prepared
	// my request is granted 67108864 bytes as 00000000-0000-0000-0000-000000000001
	// 67108864 of 1073741824 bytes are used
}

// Answers makes commands idempotent.
func ExampleAnswers() {
	a := ledger.NewAnswers(600e9, 1000)
	key := ledger.AnswerKey("default", "request-1")
	digest := ledger.DigestOf("what the request says")

	verdict, _, _ := a.Ask(key, digest, "the first", 0)
	fmt.Println(verdict == ledger.Run)
	a.Finish(key, "device/ram-0", ledger.AnswerRecord{Key: key, Digest: digest, Body: []byte(`{"allocation_id":"…"}`)}, 1)

	verdict, record, _ := a.Ask(key, digest, "a retry", 2)
	fmt.Println(verdict == ledger.Replay, string(record.Body))
	// Output:
	// true
	// true {"allocation_id":"…"}
}

package store_test

import (
	"fmt"

	"github.com/isobar-project/isobar/ledger/store"
)

// A grant and the answer to its request are recorded in one transaction; after
// the writer's death both are there, or neither.
func Example() {
	const (
		grant store.Kind = iota
		answer
	)
	mem := make([]byte, 1<<20) // in the node: a mapped memfd, kept by the vault

	region, err := store.Format(mem, "ledger/ram-0")
	if err != nil {
		fmt.Println(err)
		return
	}
	tx := region.Begin()
	id := tx.Insert(grant, []byte("1 MiB for renderer"))
	tx.Insert(answer, []byte("request 7: granted"))
	if err := tx.Commit(); err != nil {
		fmt.Println(err)
		return
	}
	tx = region.Begin()
	tx.Update(id, []byte("2 MiB for renderer"))
	// The writer dies here, before Commit. Its successor opens the same memory.

	region, err = store.Open(mem, func(id store.RecID, kind store.Kind, payload []byte) error {
		fmt.Printf("record %d, kind %d: %s\n", id, kind, payload)
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(region.Label(), "holds", region.Stats().Records, "records")
	// Output:
	// record 1, kind 0: 1 MiB for renderer
	// record 2, kind 1: request 7: granted
	// ledger/ram-0 holds 2 records
}

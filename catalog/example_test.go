package catalog_test

import (
	"fmt"
	"log"

	"github.com/google/uuid"

	"github.com/isobar-project/isobar/catalog"
	"github.com/isobar-project/isobar/eviction"
	"github.com/isobar-project/isobar/ledger"
	"github.com/isobar-project/isobar/ledger/store"
)

// A load goes through steps that others carry out; the catalog says which comes next.
func ExampleCatalog() {
	region, err := store.Format(make([]byte, 1<<20), "pool") // really a mapped memfd
	if err != nil {
		log.Fatal(err)
	}
	c := catalog.New(region, eviction.NewLRU(), uuid.New)
	now := ledger.Now{Boot: 1}

	c.Load(catalog.LoadRequest{Ref: "my request", Tenant: "default", Name: "llama", Path: "llama.gguf", Device: "ram-0"}, now)
	cp := c.Take().Steps[0].Copy // StepInspect: read the headers of the file
	c.Inspected(cp, nil, catalog.Description{Path: "/models/llama.gguf", ContentID: "…", Bytes: 1 << 20, Segments: []int64{1 << 20}}, nil, now)
	c.Granted(cp, uuid.UUID{15: 1}, 1<<20, nil, 0, now) // StepAllocate: ask the device
	c.Filled(cp, nil, now)                              // StepFill: read the tensors
	c.SealDone(cp, nil, now)                            // StepSeal

	for _, o := range c.Take().Outcomes {
		fmt.Println(o.Ref, "is answered with", o.Copy.Model.Name, "on", o.Copy.Device)
	}
	fmt.Println(c.Reclaimable("ram-0"), "bytes could be let go of: nobody reads it yet")
	// Output:
	// my request is answered with llama on ram-0
	// 1048576 bytes could be let go of: nobody reads it yet
}

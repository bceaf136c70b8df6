// Package catalog is the pure core of the pool: which models a node knows, where copies
// of them lie, who reads them, and how much they are worth.
//
// A model is a name of a tenant with a file behind it. A file that changed under the
// same path is a new version and a new object; readers of the old one keep it until they
// let go. A copy is a model on one device: LOADING → SEALED → REVOKING → gone. The
// first load wins, later ones wait for it; a load that fails leaves nothing.
//
// The catalog owns no bytes. It asks device actors for them (a grant of class weights)
// and gives them back; whether somebody still maps a copy is the device's knowledge,
// reported here as readers. A claim that nobody has redeemed does not hold a model.
//
// # Ownership and order
//
// One writer: the pool actor. A call and the time go in, Effects come out and are
// carried out in order (package ledger says more of this shape). Steps are work for
// others, whose results come back as the calls named at each StepKind.
//
// # Failure
//
// Refusals are *schemas.Error. A model whose release the device refuses, because
// somebody mapped it in the meantime, is sealed again.
//
// # Testing
//
// Tests drive the core by hand; there is nothing to mock. Random histories run it with two
// device cores and every message late at will, and cut its region after any store.
// Catalog.Check recomputes all that is kept twice.
package catalog

// Package admission is the order of those who wait for a device's memory: who is served
// next, and who may be served before his turn.
//
// # Order
//
// A Line shares what becomes free between the tenants that wait, by weight, and inside
// a tenant goes by priority, then age:
//
//   - Between tenants it is start-time fair queueing over bytes. A tenant's account is the
//     bytes it was given while others waited, over its weight. The next to be served is
//     the first of the tenant whose account is lowest; where accounts are equal, of the
//     one that has waited for longer. A tenant that begins to wait starts at the account of the one served
//     last: what it did not ask for while it was away it has not saved.
//   - Inside a tenant a higher priority goes first, and of one priority the older. But a
//     request is overtaken by at most Overtakings younger ones: those that come after
//     that stand behind it, whatever their priority.
//
// When nobody waits, nothing counts: accounts begin anew with the next who has to wait.
//
// # No starvation
//
// A request of tenant t that waits at the head of the line is served next; no other is
// served before it but those whom Slack lets pass, and they leave it all that it waits
// for. It gets there in bounded time. Let B be the bytes of those of its own tenant that
// were before it when it came, and of at most Overtakings that overtake it; L(x) the
// largest request of tenant x, W(x) its weight. Then until its turn another tenant u is
// given at most
//
//	W(u) / W(t) × (B + L(t)) + L(u)
//
// bytes, however many requests u brings, of any priority. A test holds random histories
// against both bounds.
//
// # No trace
//
// The order is a function of those who wait and of what was served. Who leaves without
// being served, by cancel or deadline, leaves it as if he had never come; who passes
// changes nobody's place.
//
// Everything here is pure: single-threaded values without clock, goroutine or I/O, that
// know nothing of memory. Package ledger says what there is room for.
//
// # Testing
//
// Random histories run a Line against a model that sorts naively, and simulate devices to
// see that the bounds hold and that who is passed is served no later. Line.Check recomputes
// what is kept twice.
package admission

// Package ledgertest drives the core of a device as a shell would, with a machine that
// is only bookkeeping: which segments exist, whose bytes are in them, and which
// processes have them open.
//
// A Machine carries the core's jobs out when its test says so, in two steps, doing and
// telling, so that results may be late and overtake each other. After every call of the
// core it checks what must always hold (see Machine.After): the core's own books,
// capacity, that memory reaches another owner only zeroed and when nobody else has it
// open, order within the queue, and refusals only where there is truly no room.
//
// It serves the tests of this module; nothing of it runs in a node.
package ledgertest

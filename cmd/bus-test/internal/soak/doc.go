// Package soak puts a node under random load from many sides at once, beside a model of
// what must be true, and counts at the end.
//
// # What is done
//
// Holders of two tenants allocate, map, write a pattern into every page, check it while they
// hold it, unmap and give back; some by leases that they let run out; some twice with one
// request_id. The node works on their bytes: it clears, copies, transfers to another device and
// moves them; some of that is cancelled. Consumers in processes of their own are killed. Large
// requests wait in line, and some are cancelled. Models are loaded, from files of the node's and
// from offered ones, read, acquired and unloaded; some loads are cancelled. An operator
// defragments, optimizes in every way, and sends what is recommended. A third tenant takes what
// its moving quota allows, and cleans up. Limits move. The node itself is killed and started
// again, over the same vault, or another takes over while it serves.
//
// # What must be true
//
// A pattern is intact as long as its grant is held, and what the node did to bytes is what it was
// asked for, page by page. A cancelled transfer leaves everything as it was. No tenant has more
// than its quota; a cleanup releases what is its tenant's, and nobody else's. A page that arrives is zero or has the
// pattern of its own tenant. A repeated request_id gives the first grant. A limit is never
// exceeded by more than it was lowered. Whoever waited first is decided first. A refusal says
// how much is missing and who holds it. Event sequences have no gaps. What a dead process or a
// lapsed lease held is gone soon. No command ends in a defect, and none stays unanswered
// unless the node was killed meanwhile.
//
// At the end independent sums agree to the byte: get_allocations by status with the fields of
// memory_info, and the blocks of the vault's files, as the kernel counts them, with the
// segments.
//
// # Failure
//
// What is not true is a violation in the report; the soak goes on. Run's error is for what
// kept it from soaking.
package soak

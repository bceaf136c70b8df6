// Package bench measures a node: what a command costs beside a raw echo over the same
// NATS server, how soon pressure is known, what the vault and a load cost, how soon a dead
// consumer's memory is another's, and what an idle node takes.
//
// # Fairness
//
// Nodes of bench's own are processes as users run them, with a vault, and write one record
// a command. Everything is measured in one run, in rounds: each round takes a slice of every
// line, in an order that turns, so that noise of the machine hits all alike. A ratio of two
// lines is the median of the rounds' ratios, except where it is of p99: those are of
// all samples together, since a slice has too few. The raw echo's client and responder have
// connections of their own.
//
// The commands have no request_id, so that nothing but the command itself is measured; the
// lines "…_named" have one, and the node remembers each outcome.
//
// # Failure
//
// A refusal where none is expected ends the run with an error: a figure of a node that
// refuses means nothing. What could not be measured has the value null, and the report says
// why.
package bench

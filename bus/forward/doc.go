// Package forward is a desk without memory of its own: it passes each command on to a
// node through a client, and hands the node's answer back. With bus.Stdio before it, a
// program speaks to a node over a pair of streams:
//
//	desk := forward.New(ctx, connection)
//	err := bus.Stdio(ctx, os.Stdin, os.Stdout, bus.StdioConfig{Node: name, Desk: desk})
//	desk.Wait()
//
// # Ordering
//
// None: each command goes its own way, and is answered when the node has answered.
//
// # Blocking
//
// Submit returns at once. A command waits for its node as long as the client has patience,
// or until the context given to New ends.
//
// # Failure
//
// A refusal of the node is handed on as it is; no answer is NO_NODE. An operation that did
// not end within the command's wait is answered as pending. A grant whose answer cannot be
// delivered is given back.
//
// # Testing
//
// The tests put it between a fake asker and a real embedded server with a fake desk.
package forward

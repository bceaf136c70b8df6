// Package client is the Go client of memory nodes: commands with typed answers and
// errors, operations followed to their end, and events.
//
//	c, err := client.Connect(client.Options{})
//	var got schemas.AllocateReply
//	err = c.Do(ctx, schemas.ActionAllocate, &schemas.AllocateRequest{SizeBytes: 64 << 20}, &got, nil)
//
// # Contract
//
// Ordering: calls are independent of each other. Events of one subject arrive in the
// order of their sequence; what is missing is said (Event.Missed).
//
// Blocking: Call waits for the answer, at most its wait, five seconds and the
// retries; Await and Do until the operation ends; each at most until its context.
//
// Failure: a node's refusals, NO_NODE and FORBIDDEN are *schemas.Error; compare with
// errors.Is(err, schemas.Errorf(code, "")). A call whose answer is lost, which no node
// answers or whose node is busy is tried again with the same request_id, so that it has
// its effect once.
//
// Ownership: everything returned is the caller's. The client is closed by its maker.
//
// Testing: give Options.InProcess an embedded server (bus.StartServer).
package client

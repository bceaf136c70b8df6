// Package bus is the node's side of NATS, and nothing else knows NATS: the
// embedded server, the connections, the micro service that turns messages into
// commands for the actors, the answers, and the outbox of events. The same
// commands over standard input and output are Stdio. Clients are in bus/client,
// connections in bus/conn.
//
//	b, err := bus.Open(bus.Config{Server: &bus.ServerConfig{StoreDir: dir}, Node: "here", Version: "1.0.0"})
//	// … make the actors, with b.Publisher() …
//	err = b.Serve(desk)
//	// … until the node drains …
//	b.StopTaking()
//	b.Close(2 * time.Second)
//
// # Ordering
//
// Commands of one action on one subject are submitted in the order in which they
// arrived; across actions there is no order. Answers come in whatever order they
// are given. Events of one subject leave in the order of Publish, numbered without
// gaps; across subjects there is no order, and pressure overtakes everything else.
//
// # Blocking
//
// Publish, and the Done and Fail of a Reply, never wait for the network or for a
// reader: the desk and the actors may call them. The desk's Submit is called on the
// goroutine that reads a subscription and must return at once. Open waits for the
// server, at most seconds; Close for what is waiting, at most its timeout.
//
// # Ownership
//
// What is given to Publish or to Done belongs to the bus: it is encoded later
// (events) or during the call (answers), and must not be changed. A Command and its
// Data belong to the desk. Payloads are copied before a handler sees them.
//
// # Failure
//
// What stops a start is an error with the fix in its text: *StartError,
// *conn.ConnectError. What goes wrong later is a Warning (Bus.Health), and the node goes on: without
// JetStream events are not kept; without a connection events wait, the oldest
// are dropped beyond a bound, and a gap event says so; the newest pressure of each
// device is never dropped. An answer to a grant that nobody hears is undone: the
// server says "no responders" for it within a round trip. A second answer to a
// command is a defect: logged, and ignored.
//
// # Testing
//
// The tests run against real embedded servers on free ports and a fake desk. Time
// is injected. BenchmarkEcho compares with a raw echo in the same run.
package bus

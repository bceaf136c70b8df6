// Package node puts the rooms together: configuration, start, take-over, drain.
//
// Load makes a Config and knows where each value came from. Open starts a node: it takes
// the vault, and with it everything that a predecessor left; opens the devices, the bus
// and the actors; and serves. Run is Open, wait, drain and close, as the program does it.
//
// # Order
//
// The vault comes first: it is the fence, and while another node holds it nothing else
// is touched. Commands are taken last, when everything is restored. A clean stop goes
// the other way: no new commands, then release, then the vault.
//
// # Failure
//
// What cannot be started is an error with the fix in its text. A vault that dies while
// the node lives is started anew and given everything again. A panic in an actor ends
// the process; its memory and records are in the vault.
//
// # Testing
//
// Package nodetest starts a server and a node with a simulated device in one call.
package node

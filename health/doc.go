// Package health keeps the warnings that are in force on a node.
//
// Each source of warnings (the bus, a device, the vault) says all that it has to say at
// once, as often as it likes: the Board finds out what is new and what is over, tells of
// each change once and in order, and remembers since when.
//
// # Ordering and blocking
//
// Say, List and Worst may be called from any goroutine and never wait for anything but one
// another. The function that is told of changes runs with the board locked, so that it
// hears of them in order: it must not block and not call the board.
//
// # Testing
//
// With a clock.Manual everything is decided by the calls; see board_test.go.
package health

// Package crashtest kills nodes, vaults and consumers and looks at what is left. It has
// tests alone.
//
// Its processes are real: the test binary runs itself again as the node, as the vault, or
// as a consumer that maps memory and never stops reading it. A test talks to them over
// NATS, the data socket and their standard streams, watches them by pidfd, and waits for
// what it can see; nothing sleeps.
//
// What is checked after a crash, in each test:
//
//   - every command that was answered is honoured, and no other has half an effect;
//   - a command that is sent again with its request_id has one effect in all;
//   - independent sums agree: the allocations, the figures, the vault's descriptors;
//   - when everything is released nothing is left, and the vault ends.
//
// By default the tests take samples of the crash points, so that they take less than a
// minute on two busy cores; with -crash.full they take all.
package crashtest

// Package gputest runs nodes on the fake GPU driver of package device/cuda/fake, and breaks it. It
// has tests alone.
//
// Its processes are real: the test binary runs itself again as the node, as the vault, and as
// a consumer, which imports what it maps with the CUDA driver as any client does. They share
// the GPUs by the driver's state file. A node takes orders on its standard input that make the
// driver fail; a test looks at what clients are told, at what is on record, and at what the
// vault holds: rolled back, told with the right code, nothing left, other devices unaffected.
//
// Nothing sleeps: tests wait for what they can see.
package gputest

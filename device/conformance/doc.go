// Package conformance is the one suite that every device driver passes unchanged.
//
// It believes no driver's word: bytes are checked in another process, which maps
// what Export gave; populated means that the kernel counts the blocks; sealed
// means that the other process fails to write, truncate and reopen; released is
// asked while that process maps the memory with its descriptor closed, and again
// after it was killed with kill -9; take-over happens after the process that
// created the segment was killed.
//
// A driver's test package needs two lines:
//
//	var suite = conformance.Suite{Open: func() (device.Driver, error) { return hostram.New(…) }}
//	func TestMain(m *testing.M)       { os.Exit(suite.Main(m)) }
//	func TestConformance(t *testing.T) { suite.Run(t) }
//
// Main is needed because the suite starts the test binary again as the other
// process. Drivers whose descriptors are not memfds give Suite.Attach, which is how
// that process gets at the bytes.
//
// The drivers that Open makes should be small (64 to 512 MiB), because the suite
// fills one to its end. Tests run one after the other and leave nothing behind:
// no goroutine, no child, no segment.
package conformance

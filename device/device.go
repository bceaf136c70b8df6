package device

import (
	"context"
	"fmt"
	"os"
)

// Type is the kind of memory of a device; the numbers are those of the wire
// contract.
type Type uint8

// The types of the wire contract.
const (
	Unknown Type = iota
	RAM
	VRAM
	SharedMemory
	UnifiedMemory
)

// String spells the type as the wire contract does.
func (t Type) String() string {
	switch t {
	case RAM:
		return "RAM"
	case VRAM:
		return "VRAM"
	case SharedMemory:
		return "SharedMemory"
	case UnifiedMemory:
		return "UnifiedMemory"
	default:
		return "Unknown"
	}
}

// Mode is what a session may do with what it is given.
type Mode uint8

// The modes. The zero Mode is the one that can do no harm.
const (
	ReadOnly Mode = iota
	ReadWrite
)

// String is "ro" or "rw", as on the data socket.
func (m Mode) String() string {
	if m == ReadWrite {
		return "rw"
	}
	return "ro"
}

// Health is a driver's opinion of its device; the strings are those of the wire
// contract.
type Health uint8

// The states of health, in order of gravity.
const (
	Healthy Health = iota
	Degraded
	Failing
	Lost
)

// String spells the health as the wire contract does.
func (h Health) String() string {
	switch h {
	case Healthy:
		return "healthy"
	case Degraded:
		return "degraded"
	case Failing:
		return "failing"
	case Lost:
		return "lost"
	default:
		return fmt.Sprintf("health(%d)", uint8(h))
	}
}

// Info is what a device is. It never changes while the driver lives.
type Info struct {
	// ID is the device's name on the wire, for example "ram-0".
	ID string
	// Kind names the implementation, for example "ram", "sim", "cuda".
	Kind string
	// HandleKind says what the descriptors are: "memfd" (map it) or "cuda_vmm"
	// (import it with the CUDA driver, whole).
	HandleKind string
	Type       Type
	// Name, Driver and UUID are for people: model, driver and version, identity.
	Name, Driver, UUID string
	// Simulated is true when no hardware of Type stands behind the bytes.
	Simulated bool
	// PhysicalBytes is what the device has, or what the caller's control group or
	// configuration leaves of it where that is less. Bytes.
	PhysicalBytes int64
	// GranularityBytes divides the size of every segment. A power of two.
	GranularityBytes int64
	// NUMANode is the node the memory is on, -1 where there is none or it is mixed.
	NUMANode int
	// Peers are the IDs of devices that reach this one's memory directly.
	Peers []string
	// ProvesRelease is true when Released is the kernel's proof that nobody else
	// can touch a segment. Where it is false (a GPU), Released fails with
	// ErrNoProof and release is proved by the session's own confirmation or the
	// end of its process.
	ProvesRelease bool
}

// Segment is one physical handle of a driver. Its methods never block and may be
// called from any goroutine.
type Segment interface {
	// Bytes is the size, a multiple of the driver's granularity.
	Bytes() int64
	// Weights is true for a segment created with CreateOptions.Weights.
	Weights() bool
	// Sealed is true once nobody can write the segment any more. Never true of
	// scratch.
	Sealed() bool
	// File is the original descriptor: what goes into the vault and what Import
	// adopts after a restart. It is owned by the segment: do not close it, do not
	// hand it to a client (Export makes those). After Destroy it is closed.
	File() *os.File
}

// CreateOptions say what a new segment is for.
type CreateOptions struct {
	// Weights makes a segment that is filled once by Fill and then Seal'd. Its
	// bytes are counted from now on, but it need not be populated until filled.
	// False makes scratch: populated, zero, sealed against shrinking, growing and
	// further seals.
	Weights bool
	// Unclear makes scratch that need not be zero: the caller overwrites or clears all of it before
	// anybody else gets a descriptor. What other processes left there may be in it till then.
	Unclear bool
	// Label appears in /proc/PID/maps of everybody who maps the segment (where
	// the driver can do that). Up to 64 bytes; "" is a default of the driver.
	Label string
}

// ImportOptions say what the taken-over descriptor is believed to be.
type ImportOptions struct {
	// Weights: the segment was created as weights.
	Weights bool
	// Sealed: the ledger says that Seal had returned. A file that turns out not to
	// be sealed is then refused. The other way round is accepted, because a crash
	// may fall between Seal and the ledger's note of it: Segment.Sealed of the
	// result is the kernel's truth.
	Sealed bool
}

// Holder is a process that still holds a segment.
type Holder struct {
	PID int
	// StartTime tells a process from a later one of the same PID: field 22 of
	// /proc/PID/stat, in clock ticks since boot.
	StartTime uint64
	// Command is the process's short name.
	Command string
	// MappedBytes is the address space it maps of the segment; 0 when it only
	// has a descriptor open.
	MappedBytes int64
	// Open is true when it has a descriptor open.
	Open bool
}

// Sample is the driver's own view of the device at one moment. All of it was read
// between two calls of the driver, so that the figures belong together.
type Sample struct {
	// PhysicalBytes is as in Info, but now: a control group's limit may have moved.
	PhysicalBytes int64
	// UsedBytes is everything in use on the device, ours included, so that
	// UsedBytes - OursBytes is the use outside ("outside" of the byte identity;
	// never negative).
	UsedBytes int64
	// OursBytes is what the driver's live segments really occupy: resident bytes
	// on RAM, whole handles on a GPU.
	OursBytes int64
	// Others are the processes that use the device by themselves, or still have what we have
	// let go of, those with the most first and at most MaxOthers; nil where the driver cannot
	// tell them, or has not looked again. Shared, as Reasons is.
	Others []ProcessUse
	// Health and its reasons, one sentence each with the fix where there is one. A
	// healthy device may have reasons too: notes, such as small pages in use.
	// Reasons is shared: do not change it.
	Health  Health
	Reasons []string
}

// MaxOthers bounds how many processes a Sample names.
const MaxOthers = 16

// ProcessUse is what one other process has of a device.
type ProcessUse struct {
	PID int
	// Command is the process's short name, "" where it cannot be read.
	Command string
	// Bytes it uses by itself: what it maps of our segments is not among them.
	Bytes int64
	// Pinned are bytes of segments that were destroyed here and that it still maps; they are part
	// of Sample.OursBytes.
	Pinned int64
}

// OutsideBytes is the use that is not ours, never negative.
func (s Sample) OutsideBytes() int64 { return max(0, s.UsedBytes-s.OursBytes) }

// ProcessUser is a driver that can say how much of the device processes use by
// themselves, beside what they map of our segments.
type ProcessUser interface {
	// UsedBy sums what the given processes use, in bytes; what they share among each
	// other counts once. Processes that have exited count nothing. It may take
	// milliseconds a process and is called from the thread that calls Sample, just
	// before it.
	UsedBy(pids []int) (int64, error)
}

// Driver owns the bytes of one device. The package comment says who may call
// what, and when.
type Driver interface {
	// Info never blocks.
	Info() Info

	// Create makes a segment. bytes must be a positive multiple of the granularity
	// (ErrSize otherwise). ErrOutOfMemory when the device has no room; on any error,
	// cancellation included, nothing stays behind.
	Create(ctx context.Context, bytes int64, o CreateOptions) (Segment, error)

	// Import adopts the original descriptor of a segment that an earlier process
	// created: take-over. It touches no byte and is fast. ErrMismatch when the
	// file is not what bytes and o say. On success f belongs to the segment; on
	// error it stays the caller's.
	Import(f *os.File, bytes int64, o ImportOptions) (Segment, error)

	// Export makes a descriptor of s for one session: a new open file description
	// where the kernel knows such a thing, so that Released can tell the session
	// apart. The caller closes it once it has been sent. Unsealed weights are
	// ErrNotSealed; a sealed segment is exported for reading whatever m says.
	Export(s Segment, m Mode) (*os.File, error)

	// Released is true exactly when nobody but the node and its vault has s open or
	// mapped: the proof of release. ErrNoProof where Info.ProvesRelease is false.
	Released(s Segment) (bool, error)

	// Holders says who holds s: for attributing zombie bytes, not for proof (a
	// process may come and go while the scan runs). It leaves out this process and
	// the given PIDs (the vault's). It costs milliseconds to tens of them.
	Holders(s Segment, except ...int) ([]Holder, error)

	// Clear sets n bytes from off to value. ErrSealed, ErrRange.
	Clear(s Segment, off, n int64, value byte) error

	// Copy copies n bytes between segments of this driver; ranges in one segment
	// must not overlap (ErrRange).
	Copy(dst Segment, dstOff int64, src Segment, srcOff, n int64) error

	// Read copies len(b) bytes of s from off into b. Read and Write are how bytes get
	// from one driver's segment to another's: by way of a buffer of the caller. ErrRange.
	Read(s Segment, off int64, b []byte) error

	// Write copies b into s from off. ErrSealed, ErrRange.
	Write(s Segment, off int64, b []byte) error

	// Fill reads n bytes of f from fileOff into s from off, and returns how many
	// bytes were placed. It neither uses nor moves f's own offset. A file that
	// ends early is io.ErrUnexpectedEOF, whether it was short before or is
	// truncated meanwhile. Concurrent calls on disjoint ranges are the way to use
	// several cores; chunks of 4 to 16 MiB are a good size.
	Fill(ctx context.Context, s Segment, off int64, f *os.File, fileOff, n int64) (int64, error)

	// Seal ends the writing of weights for good, for everybody. Sealing twice is
	// no error; sealing scratch is ErrScratch.
	Seal(s Segment) error

	// Destroy drops this process's mapping and descriptor of s and stops counting
	// it. Every later use of s is ErrDestroyed; destroying twice is no error. It
	// works on a lost driver too. An *OwedError says that the bytes are not back yet:
	// whoever counts them goes on until they are.
	Destroy(s Segment) error

	// Sample reads the driver's figures. It is called as often as every 50 ms.
	Sample() (Sample, error)

	// Close drops every segment of this process; the bytes live on where somebody
	// else holds their descriptors. Later calls are ErrClosed. Closing twice is no
	// error.
	Close() error
}

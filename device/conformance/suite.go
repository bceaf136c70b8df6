//go:build linux

package conformance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

// Suite is what the tests need to know of a driver.
type Suite struct {
	// Open makes a fresh driver, in the test's process or in another one. Its
	// device should be 64 to 512 MiB large. Required.
	Open func() (device.Driver, error)
	// Attach gets at the bytes behind an exported descriptor, in the other process;
	// nil maps it, as consumers do with a memfd.
	Attach func(f *os.File, bytes int64, m device.Mode) (Attachment, error)
}

// Attachment is a consumer's view of a segment.
type Attachment interface {
	ReadAt(p []byte, off int64) error
	WriteAt(p []byte, off int64) error
	Close() error
}

func (s Suite) attach(f *os.File, bytes int64, m device.Mode) (Attachment, error) {
	if s.Attach != nil {
		return s.Attach(f, bytes, m)
	}
	prot := unix.PROT_READ
	if m == device.ReadWrite {
		prot |= unix.PROT_WRITE
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(bytes), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	return mapping(b), nil
}

type mapping []byte

func (m mapping) ReadAt(p []byte, off int64) error  { copy(p, m[off:]); return nil }
func (m mapping) WriteAt(p []byte, off int64) error { copy(m[off:], p); return nil }
func (m mapping) Close() error                      { return unix.Munmap(m) }

// segmentBytes is the size most tests use: several huge pages and an odd rest.
func (s Suite) segmentBytes(d device.Driver) int64 {
	g := d.Info().GranularityBytes
	return (5<<20 + g - 1) / g * g
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"InfoIsSound", testInfo},
		{"SizesAreChecked", testSizes},
		{"ScratchIsZeroAndReal", testScratchIsReal},
		{"AnotherProcessSeesAndWritesTheBytes", testSharing},
		{"ScratchKeepsItsSize", testScratchSeals},
		{"ClearIsExact", testClear},
		{"CopyIsExact", testCopy},
		{"ReadAndWriteAreExact", testReadWrite},
		{"FillIsExact", testFill},
		{"FillInParallel", testFillParallel},
		{"FillOfAShortFile", testFillShort},
		{"FillOfAFileTruncatedMeanwhile", testFillTruncated},
		{"RangesAreChecked", testRanges},
		{"SealedIsSealedForEverybody", testSeal},
		{"UnsealedWeightsStayHome", testUnsealed},
		{"ReleaseIsProved", testRelease},
		{"ReleaseAfterKill", testReleaseAfterKill},
		{"HoldersAreNamed", testHolders},
		{"OutOfMemoryLeavesNothing", testOutOfMemory},
		{"CancelLeavesNothing", testCancel},
		{"MadeInTwoSteps", testStages},
		{"SampleFollowsTheBytes", testSample},
		{"TakeOver", testTakeOver},
		{"ImportRefusesStrangers", testImportRefuses},
		{"DestroyedAndClosed", testEnds},
		{"Concurrency", testConcurrency},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			d, err := s.Open()
			must(t, err)
			before := openDescriptors(t)
			b := &bench{Suite: s, d: d, bytes: s.segmentBytes(d)}
			t.Cleanup(func() {
				if err := d.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				if after := openDescriptors(t); !t.Failed() && len(after) > len(before) {
					t.Errorf("descriptors left open: %v, before: %v", after, before)
				}
				goleak.VerifyNone(t, leaks)
			})
			c.test(t, b)
		})
	}
}

// bench is one test's driver.
type bench struct {
	Suite
	d     device.Driver
	bytes int64 // of the usual segment
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want one that is %v", what, err, want)
	}
}

// openDescriptors lists what this process has open, runtime's own left out.
func openDescriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	var list []string
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" && target != "anon_inode:[pidfd]" {
			list = append(list, e.Name()+" "+target)
		}
	}
	slices.Sort(list)
	return list
}

// blockBytes is what the kernel holds of a file, by its own count.
func blockBytes(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))
	return st.Blocks * 512
}

// pattern is n bytes in which no two pages are alike.
func pattern(n int64, seed byte) []byte {
	const page = 4096
	noise := make([]byte, 2*page)
	x := uint32(seed) + 1
	for i := range noise {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	b := make([]byte, n)
	for off := int64(0); off < n; off += page {
		number := off / page
		copy(b[off:], noise[number*31%page:][:page])
		if n-off >= 8 {
			binary.LittleEndian.PutUint64(b[off:], uint64(number)<<8|uint64(seed))
		}
	}
	return b
}

// filled is n bytes of one value.
func filled(n int64, value byte) []byte { return bytes.Repeat([]byte{value}, int(n)) }

// fileOf writes a file in the test's own folder.
func fileOf(t *testing.T, content []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "weights")
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	_, err = f.Write(content)
	must(t, err)
	return f
}

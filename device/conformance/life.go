//go:build linux

package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/device"
)

func testSeal(t *testing.T, b *bench) {
	want := pattern(b.bytes, 9)
	s := b.weights(t, want)
	if s.Sealed() || !s.Weights() {
		t.Errorf("new weights: weights %v, sealed %v", s.Weights(), s.Sealed())
	}
	must(t, b.d.Seal(s))
	must(t, b.d.Seal(s))
	if !s.Sealed() {
		t.Error("weights do not say that they are sealed")
	}
	scratch := b.scratch(t, b.bytes)
	wantErr(t, "seal scratch", b.d.Seal(scratch), device.ErrScratch)

	// Not even the driver writes any more; reading goes on.
	wantErr(t, "clear", b.d.Clear(s, 0, 1, 0), device.ErrSealed)
	wantErr(t, "copy to", b.d.Copy(s, 0, scratch, 0, 1), device.ErrSealed)
	_, err := b.d.Fill(context.Background(), s, 0, fileOf(t, want), 0, 1)
	wantErr(t, "fill", err, device.ErrSealed)
	must(t, b.d.Copy(scratch, 0, s, 0, b.bytes))

	for _, m := range []device.Mode{device.ReadOnly, device.ReadWrite} {
		p := b.session(t, s, m)
		if b.memfd() {
			p.refused("attach %d %d", b.bytes, device.ReadWrite)
			p.refused("reopen %d", b.bytes)
			p.refused("pwrite %d", 0)
			p.refused("truncate %d", 0)
			p.refused("punch %d %d", 0, 4096)
		}
		p.ok("attach %d %d", b.bytes, device.ReadOnly)
		b.contains(t, "sealed weights, exported "+m.String(), p, want)
	}
}

func testUnsealed(t *testing.T, b *bench) {
	s := b.weights(t, pattern(b.bytes, 10))
	_, err := b.d.Export(s, device.ReadOnly)
	wantErr(t, "export of unsealed weights", err, device.ErrNotSealed)
	if !b.memfd() {
		return
	}
	// Somebody got hold of it all the same: then it cannot be sealed.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", s.File().Fd()), os.O_RDWR, 0)
	must(t, err)
	wantErr(t, "seal of weights that somebody holds", b.d.Seal(s), device.ErrShared)
	must(t, f.Close())
	must(t, b.d.Seal(s))
}

func testRelease(t *testing.T, b *bench) {
	if !b.d.Info().ProvesRelease {
		_, err := b.d.Released(b.scratch(t, b.bytes))
		wantErr(t, "released", err, device.ErrNoProof)
		return
	}
	weights := b.weights(t, pattern(b.bytes, 11))
	must(t, b.d.Seal(weights))
	for _, s := range []device.Segment{b.scratch(t, b.bytes), weights} {
		for _, m := range []device.Mode{device.ReadOnly, device.ReadWrite} {
			when := fmt.Sprintf("weights %v, %v, ", s.Weights(), m)
			b.released(t, when+"fresh", s, true)
			p := b.session(t, s, m)
			b.released(t, when+"open elsewhere", s, false)
			attached := m
			if s.Weights() {
				attached = device.ReadOnly
			}
			p.ok("attach %d %d", b.bytes, attached)
			p.ok("close")
			b.released(t, when+"closed but mapped elsewhere", s, false)
			p.ok("detach")
			b.released(t, when+"unmapped again", s, true)
		}
	}
	// The vault's duplicate of the original is not a session.
	fd, err := unix.FcntlInt(weights.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	b.released(t, "with the vault's duplicate", weights, true)
	must(t, unix.Close(fd))
}

func testReleaseAfterKill(t *testing.T, b *bench) {
	if !b.d.Info().ProvesRelease {
		return // testRelease has checked that it says so
	}
	s := b.scratch(t, b.bytes)
	first, second := b.consumer(t, s, device.ReadWrite), b.consumer(t, s, device.ReadWrite)
	first.ok("close")
	b.released(t, "two consumers", s, false)
	first.kill()
	b.released(t, "one of two consumers killed", s, false)
	second.kill()
	b.released(t, "both consumers killed", s, true)
}

func testHolders(t *testing.T, b *bench) {
	s := b.scratch(t, b.bytes)
	holders := func(except ...int) []device.Holder {
		t.Helper()
		list, err := b.d.Holders(s, except...)
		must(t, err)
		if !b.memfd() { // who holds it is told, but the kernel does not say how
			for i := range list {
				list[i].MappedBytes, list[i].Open = 0, false
			}
		}
		return list
	}
	if list := holders(); len(list) != 0 {
		t.Fatalf("a fresh segment has holders: %+v", list)
	}
	p := b.consumer(t, s, device.ReadOnly)
	proc, err := procfs.NewProc(p.pid())
	must(t, err)
	stat, err := proc.Stat()
	must(t, err)
	want := device.Holder{PID: p.pid(), StartTime: stat.Starttime, Command: stat.Comm}
	if b.memfd() {
		want.MappedBytes, want.Open = b.bytes, true
	}
	if list := holders(); len(list) != 1 || list[0] != want {
		t.Errorf("holders %+v, want %+v", list, want)
	}
	if list := holders(p.pid()); len(list) != 0 {
		t.Errorf("holders %+v, want none beside the excepted", list)
	}
	p.ok("close")
	want.Open = false
	if list := holders(); len(list) != 1 || list[0] != want {
		t.Errorf("holders after closing %+v, want %+v", list, want)
	}
	p.ok("detach")
	if list := holders(); len(list) != 0 {
		t.Errorf("holders after unmapping %+v, want none", list)
	}
}

func testOutOfMemory(t *testing.T, b *bench) {
	info := b.d.Info()
	_, err := b.d.Create(context.Background(), info.PhysicalBytes+info.GranularityBytes, device.CreateOptions{})
	wantErr(t, "create of more than there is", err, device.ErrOutOfMemory)
	_, err = b.d.Create(context.Background(), 1<<62, device.CreateOptions{Weights: true})
	wantErr(t, "create of absurdly much", err, device.ErrOutOfMemory)
	if got := b.ours(t); got != 0 {
		t.Errorf("refused creates left %d bytes", got)
	}

	bytes := max(info.GranularityBytes, info.PhysicalBytes/6/info.GranularityBytes*info.GranularityBytes)
	var list []device.Segment
	for len(list) <= 6 {
		before := len(openDescriptors(t))
		// Weights take part: they count from now on, filled or not.
		s, err := b.d.Create(context.Background(), bytes, device.CreateOptions{Weights: len(list)%2 == 1})
		if err != nil {
			wantErr(t, "create on a full device", err, device.ErrOutOfMemory)
			if after := len(openDescriptors(t)); after != before {
				t.Errorf("a refused create left %d descriptors", after-before)
			}
			break
		}
		list = append(list, s)
	}
	if len(list) == 0 || len(list) > 6 {
		t.Fatalf("%d segments of %d bytes fit a device of %d", len(list), bytes, info.PhysicalBytes)
	}
	must(t, b.d.Destroy(list[0]))
	s := b.scratch(t, bytes) // what was given up can be had again
	b.contains(t, "recreated", b.consumer(t, s, device.ReadOnly), make([]byte, bytes))
}

// testStages is of drivers that make segments in two steps; others pass.
func testStages(t *testing.T, b *bench) {
	staged, ok := b.d.(device.Stager)
	if !ok {
		return
	}
	for _, o := range []device.CreateOptions{{}, {Unclear: true}, {Weights: true}} {
		s, err := staged.Begin(context.Background(), b.bytes, o)
		must(t, err)
		if s.File() == nil || s.Bytes() != b.bytes || s.Weights() != o.Weights {
			t.Errorf("%+v: begun with file %v, %d bytes, weights %v", o, s.File(), s.Bytes(), s.Weights())
		}
		if got := b.ours(t); got < b.bytes {
			t.Errorf("%+v: %d bytes are there of %d that were begun", o, got, b.bytes)
		}
		if o.Weights {
			must(t, b.d.Write(s, 0, []byte{1})) // which finishes them
		} else {
			wantErr(t, "read of what is not finished", b.d.Read(s, 0, make([]byte, 1)), device.ErrUnfinished)
			wantErr(t, "write to it", b.d.Write(s, 0, make([]byte, 1)), device.ErrUnfinished)
		}
		must(t, staged.Finish(context.Background(), s))
		must(t, staged.Finish(context.Background(), s))
		must(t, b.d.Write(s, 1, []byte{2}))
		got := make([]byte, 3)
		must(t, b.d.Read(s, 0, got))
		if o == (device.CreateOptions{}) && !bytes.Equal(got, []byte{0, 2, 0}) || o.Weights && !bytes.Equal(got, []byte{1, 2, 0}) {
			t.Errorf("%+v: reads as %v", o, got)
		}
		must(t, b.d.Destroy(s))
		wantErr(t, "finish of what was destroyed", staged.Finish(context.Background(), s), device.ErrDestroyed)

		s, err = staged.Begin(context.Background(), b.bytes, o)
		must(t, err)
		must(t, b.d.Destroy(s))
		if got := b.ours(t); got != 0 {
			t.Errorf("%+v: %d bytes are left of what was begun and destroyed", o, got)
		}
	}
	_, err := staged.Begin(context.Background(), 1, device.CreateOptions{})
	wantErr(t, "begin of one byte", err, device.ErrSize)
	s := b.scratch(t, b.bytes)
	b.contains(t, "created", b.consumer(t, s, device.ReadOnly), make([]byte, b.bytes))
}

func testSample(t *testing.T, b *bench) {
	before, err := b.d.Sample()
	must(t, err)
	if before.OursBytes != 0 || before.PhysicalBytes <= 0 || before.UsedBytes < 0 || before.Health != device.Healthy {
		t.Errorf("fresh driver: %+v", before)
	}
	check := func(when string, want int64) {
		t.Helper()
		now, err := b.d.Sample()
		must(t, err)
		if now.OursBytes != want || now.UsedBytes < now.OursBytes {
			t.Errorf("%s: %+v, want ours %d and used not below", when, now, want)
		}
	}
	s := b.scratch(t, b.bytes)
	check("scratch", b.bytes)
	w := b.weights(t, pattern(b.bytes, 12))
	check("filled weights", 2*b.bytes)
	must(t, b.d.Seal(w))
	check("sealed weights", 2*b.bytes)
	must(t, b.d.Clear(s, 0, b.bytes, 1))
	check("cleared scratch", 2*b.bytes)
	must(t, b.d.Destroy(s))
	check("one destroyed", b.bytes)
	must(t, b.d.Destroy(w))
	check("both destroyed", 0)
}

// creator starts a process that makes one segment of scratch and one of weights, and
// plays its vault: it gives the original descriptors.
func (b *bench) creator(t *testing.T) (p *process, scratch, weights *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	theirs := os.NewFile(uintptr(pair[1]), "creator's end")
	p = start(t, roleCreator, theirs)
	must(t, theirs.Close())
	defer unix.Close(pair[0])
	rights := make([]byte, unix.CmsgSpace(2*4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 16), rights, unix.MSG_CMSG_CLOEXEC)
	must(t, err)
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	must(t, err)
	if len(messages) != 1 {
		t.Fatalf("the creator sent %d control messages", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	must(t, err)
	if len(fds) != 2 {
		t.Fatalf("the creator sent %d descriptors", len(fds))
	}
	scratch, weights = os.NewFile(uintptr(fds[0]), "scratch"), os.NewFile(uintptr(fds[1]), "weights")
	t.Cleanup(func() { _ = errors.Join(scratch.Close(), weights.Close()) })
	return p, scratch, weights
}

func testTakeOver(t *testing.T, b *bench) {
	p, scratchFile, weightsFile := b.creator(t)
	var survivor *process
	if b.memfd() { // a consumer of the first node, which must not notice
		f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", scratchFile.Fd()), os.O_RDWR, 0)
		must(t, err)
		survivor = start(t, roleConsumer, f)
		must(t, f.Close())
		survivor.ok("attach %d %d", b.bytes, device.ReadWrite)
	}
	p.kill()

	scratch, err := b.d.Import(scratchFile, b.bytes, device.ImportOptions{})
	must(t, err)
	weights, err := b.d.Import(weightsFile, b.bytes, device.ImportOptions{Weights: true, Sealed: true})
	must(t, err)
	if scratch.Weights() || scratch.Sealed() || !weights.Weights() || !weights.Sealed() {
		t.Error("the segments came back as another kind")
	}
	want := 2 * b.bytes
	if got := b.ours(t); got != want {
		t.Errorf("ours after take-over: %d, want %d", got, want)
	}
	if survivor != nil {
		b.contains(t, "the old consumer", survivor, filled(b.bytes, creatorScratch))
		b.released(t, "with a consumer from before", scratch, false)
		survivor.kill()
		b.released(t, "the old consumer is dead", scratch, true)
	}
	b.contains(t, "scratch", b.consumer(t, scratch, device.ReadWrite), filled(b.bytes, creatorScratch))
	b.contains(t, "weights", b.consumer(t, weights, device.ReadOnly), filled(b.bytes, creatorWeights))
	wantErr(t, "clear of weights taken over", b.d.Clear(weights, 0, 1, 0), device.ErrSealed)
	must(t, b.d.Clear(scratch, 0, b.bytes, 1))
}

func testImportRefuses(t *testing.T, b *bench) {
	_, scratchFile, weightsFile := b.creator(t)
	refuse := func(what string, f *os.File, bytes int64, o device.ImportOptions) {
		t.Helper()
		_, err := b.d.Import(f, bytes, o)
		wantErr(t, what, err, device.ErrMismatch)
		if _, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil {
			t.Errorf("%s: the file was taken all the same: %v", what, err)
		}
	}
	refuse("an ordinary file", fileOf(t, make([]byte, b.bytes)), b.bytes, device.ImportOptions{})
	refuse("another size", scratchFile, 2*b.bytes, device.ImportOptions{})
	if b.memfd() {
		fd, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		must(t, err)
		unsealed := os.NewFile(uintptr(fd), "unsealed")
		defer unsealed.Close()
		must(t, unsealed.Truncate(b.bytes))
		refuse("a memfd without seals", unsealed, b.bytes, device.ImportOptions{})
		refuse("a memfd without seals", unsealed, b.bytes, device.ImportOptions{Weights: true})
		refuse("weights as scratch", weightsFile, b.bytes, device.ImportOptions{})
		refuse("scratch as sealed weights", scratchFile, b.bytes, device.ImportOptions{Weights: true, Sealed: true})
	}
	_, err := b.d.Import(scratchFile, b.d.Info().GranularityBytes+1, device.ImportOptions{})
	wantErr(t, "import of an odd size", err, device.ErrSize)
	if got := b.ours(t); got != 0 {
		t.Errorf("refused imports left %d bytes", got)
	}

	// A crash may fall between Seal and the ledger's note of it.
	s, err := b.d.Import(weightsFile, b.bytes, device.ImportOptions{Weights: true})
	must(t, err)
	if !s.Sealed() {
		t.Error("weights that are sealed, imported as unsealed, must say that they are sealed")
	}
	_, err = b.d.Import(weightsFile, b.bytes, device.ImportOptions{Weights: true, Sealed: true})
	wantErr(t, "import twice", err, device.ErrMismatch)
}

func testEnds(t *testing.T, b *bench) {
	other, err := b.Open()
	must(t, err)
	defer other.Close()
	s := b.scratch(t, b.bytes)
	wantErr(t, "clear by another driver", other.Clear(s, 0, 1, 0), device.ErrForeign)
	wantErr(t, "destroy by another driver", other.Destroy(s), device.ErrForeign)

	gone := b.scratch(t, b.bytes)
	held := b.consumer(t, gone, device.ReadWrite)
	b.letGo(t, gone)
	must(t, b.d.Destroy(gone))
	held.ok("write 0 %d 5", b.bytes) // whoever holds it keeps it
	b.contains(t, "after destroy", held, filled(b.bytes, 5))

	live := b.scratch(t, b.bytes)
	file := fileOf(t, []byte("x"))
	check := func(s device.Segment, want error) {
		t.Helper()
		_, err := b.d.Export(s, device.ReadOnly)
		wantErr(t, "export", err, want)
		_, err = b.d.Released(s)
		wantErr(t, "released", err, want)
		_, err = b.d.Holders(s)
		wantErr(t, "holders", err, want)
		_, err = b.d.Fill(context.Background(), s, 0, file, 0, 1)
		wantErr(t, "fill", err, want)
		wantErr(t, "clear", b.d.Clear(s, 0, 1, 0), want)
		wantErr(t, "copy to", b.d.Copy(s, 0, live, 0, 1), want)
		wantErr(t, "copy from", b.d.Copy(live, 0, s, 0, 1), want)
		wantErr(t, "seal", b.d.Seal(s), want)
	}
	check(gone, device.ErrDestroyed)
	must(t, b.d.Close())
	must(t, b.d.Close())
	check(live, device.ErrClosed)
	_, err = b.d.Create(context.Background(), b.bytes, device.CreateOptions{})
	wantErr(t, "create", err, device.ErrClosed)
	_, err = b.d.Sample()
	wantErr(t, "sample", err, device.ErrClosed)
	must(t, b.d.Destroy(live))
}

//go:build linux

package hostram_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostram"
)

func lender(t *testing.T, d *hostram.Driver, bytes int64, o device.CreateOptions) device.Lender {
	t.Helper()
	l, ok := create(t, d, bytes, o).(device.Lender)
	if !ok || !l.Lends() {
		t.Skip("this kernel cannot populate a mapping (Linux 5.14 can)")
	}
	return l
}

// What another driver writes into a loan is the segment's, page for page and no page more, on
// small pages and on huge ones.
func TestLoansForWriting(t *testing.T) {
	for _, small := range []bool{false, true} {
		d := newHost(512*mib, 512*mib).open(t, hostram.Config{SmallPages: small})
		const n = 5*mib + 8192
		for _, weights := range []bool{true, false} {
			s := lender(t, d, n, device.CreateOptions{Weights: weights})
			const off = 2*mib - 3
			l, err := s.Lend(off, 2*mib+7, device.ReadWrite)
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(l.Bytes())) != 2*mib+7 {
				t.Errorf("lent %d bytes", len(l.Bytes()))
			}
			if err := l.Ready(1, mib); err != nil {
				t.Fatal(err)
			}
			copy(l.Bytes()[1:1+mib], bytes.Repeat([]byte{7}, int(mib)))
			if err := l.Ready(mib+1, mib+6); err != nil {
				t.Fatal(err)
			}
			l.Bytes()[2*mib+6] = 9
			if err := l.Ready(mib, mib+8); !errors.Is(err, device.ErrRange) {
				t.Errorf("ready beyond the loan: %v", err)
			}
			l.Return()
			l.Return()
			got := make([]byte, n)
			if err := d.Read(s, 0, got); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, n)
			copy(want[off+1:], bytes.Repeat([]byte{7}, int(mib)))
			want[off+2*mib+6] = 9
			if !bytes.Equal(got, want) {
				t.Errorf("small %v, weights %v: the segment is otherwise", small, weights)
			}
			counted, kernel, err := d.Audit()
			if err != nil || counted != kernel || kernel == 0 || kernel > n || !weights && kernel != n {
				t.Errorf("small %v, weights %v: %d bytes counted, %d there (%v)", small, weights, counted, kernel, err)
			}
			if err := d.Destroy(s); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestLoansAreRefused(t *testing.T) {
	d := newHost(512*mib, 512*mib).open(t, hostram.Config{})
	s := lender(t, d, 4*mib, device.CreateOptions{Weights: true})
	for _, c := range []struct{ off, n int64 }{{0, 0}, {-1, 1}, {4 * mib, 1}, {1, 4 * mib}} {
		if _, err := s.Lend(c.off, c.n, device.ReadWrite); !errors.Is(err, device.ErrRange) {
			t.Errorf("%d bytes at %d: %v", c.n, c.off, err)
		}
	}
	if _, err := lender(t, d, 4*mib, device.CreateOptions{}).Entrust(func() {}); !errors.Is(err, device.ErrNotSealed) {
		t.Errorf("scratch: %v", err)
	}
	if err := d.Seal(s); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lend(0, 1, device.ReadWrite); !errors.Is(err, device.ErrSealed) {
		t.Errorf("sealed weights for writing: %v", err)
	}
	l, err := s.Lend(0, 4*mib, device.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Ready(0, mib); err != nil || l.Bytes()[mib] != 0 {
		t.Errorf("for reading: %v", err)
	}
	l.Return()
	if err := d.Destroy(s); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lend(0, 1, device.ReadOnly); !errors.Is(err, device.ErrDestroyed) {
		t.Errorf("what is destroyed: %v", err)
	}
	if _, err := s.Entrust(func() {}); !errors.Is(err, device.ErrDestroyed) {
		t.Errorf("what is destroyed: %v", err)
	}
}

// A node that has no room says so before a page of a loan is made.
func TestLoansAskForRoom(t *testing.T) {
	h := newHost(512*mib, 512*mib)
	d := h.open(t, hostram.Config{Bind: true})
	if reasons := mustSample(t, d).Reasons; mustSample(t, d).Health != device.Healthy {
		t.Skip("memory cannot be bound here: ", reasons)
	}
	s := lender(t, d, 4*mib, device.CreateOptions{Weights: true})
	l, err := s.Lend(0, 4*mib, device.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Return()
	if err := l.Ready(0, 2*mib); err != nil {
		t.Fatal(err)
	}
	h.set(512*mib, 0)
	if err := l.Ready(2*mib, 2*mib); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("without room: %v", err)
	}
}

func mustSample(t *testing.T, d *hostram.Driver) device.Sample {
	t.Helper()
	s, err := d.Sample()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Weights may be entrusted while they are filled: sealing them does not wait for it, and what was
// seen before stays the memory.
func TestEntrustedMemoryIsSealed(t *testing.T) {
	d := newHost(512*mib, 512*mib).open(t, hostram.Config{})
	s := lender(t, d, 4*mib, device.CreateOptions{Weights: true})
	if err := d.Write(s, 0, []byte{5}); err != nil {
		t.Fatal(err)
	}
	l, err := s.Entrust(func() {})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(s, 2*mib, []byte{6}); err != nil {
		t.Fatal(err)
	}
	if err := d.Seal(s); err != nil {
		t.Fatal(err)
	}
	if b := l.Bytes(); b[0] != 5 || b[2*mib] != 6 {
		t.Errorf("entrusted memory holds %d and %d", b[0], b[2*mib])
	}
	if ok, err := d.Released(s); err != nil || !ok {
		t.Errorf("released %v, %v", ok, err)
	}
	l.Return()
}

// Entrusted memory is recalled, once, when its segment ends, by Destroy or by Close, and not
// when it was returned before. It is no obstacle to the proof of release.
func TestEntrustedMemoryIsRecalled(t *testing.T) {
	d := newHost(512*mib, 512*mib).open(t, hostram.Config{})
	open := func() device.Lender {
		s := lender(t, d, 2*mib, device.CreateOptions{Weights: true})
		if err := d.Write(s, 0, []byte{5}); err != nil {
			t.Fatal(err)
		}
		if err := d.Seal(s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	recalled := 0
	entrust := func(s device.Lender) device.Loan {
		var l device.Loan
		var err error
		l, err = s.Entrust(func() {
			recalled++
			if l.Bytes()[0] != 5 {
				t.Error("recalled memory is gone already")
			}
			l.Return()
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b, c := open(), open(), open()
	entrust(a)
	entrust(a)
	entrust(b).Return()
	entrust(c)
	if ok, err := d.Released(a); err != nil || !ok {
		t.Errorf("released %v, %v, while we ourselves map it", ok, err)
	}
	for _, s := range []device.Segment{a, b, a} {
		if err := d.Destroy(s); err != nil {
			t.Fatal(err)
		}
	}
	if recalled != 2 {
		t.Errorf("%d recalls, want those of the two loans that were out", recalled)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if recalled != 3 {
		t.Errorf("%d recalls when all was closed, want 3", recalled)
	}
}

// Whoever needs a segment alone waits for its loans.
func TestSealWaitsForALoan(t *testing.T) {
	d := newHost(512*mib, 512*mib).open(t, hostram.Config{})
	s := lender(t, d, 2*mib, device.CreateOptions{Weights: true})
	l, err := s.Lend(0, 2*mib, device.ReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	sealed := make(chan error)
	go func() { sealed <- d.Seal(s) }()
	if err := l.Ready(0, 2*mib); err != nil {
		t.Fatal(err)
	}
	l.Bytes()[2*mib-1] = 3
	select {
	case err := <-sealed:
		t.Fatalf("sealed while it was lent: %v", err)
	default:
	}
	l.Return()
	if err := <-sealed; err != nil {
		t.Fatal(err)
	}
}

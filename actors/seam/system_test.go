package seam

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver makes a Receiver of a function.
type receiver func(msg any)

func (f receiver) Receive(msg any) { f(msg) }

func newSystem(t *testing.T, opts ...Option) *System {
	t.Helper()
	s := NewSystem(nil, opts...)
	t.Cleanup(func() { shutdown(t, s) })
	return s
}

func shutdown(t *testing.T, s *System) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// flush waits until everything told before on the query lane was delivered.
func flush(t *testing.T, tell func(Lane, any) error) {
	t.Helper()
	done := make(chan struct{})
	for {
		err := tell(QueryLane, func() { close(done) })
		if err == nil {
			break
		}
		if err != ErrBusy {
			t.Fatalf("tell: %v", err)
		}
		runtime.Gosched()
	}
	<-done
}

func TestEveryAcceptedMessageArrivesOnceAndInOrder(t *testing.T) {
	const senders, each = 8, 5000
	for _, how := range []string{"Tell", "TellHere"} {
		t.Run(how, func(t *testing.T) {
			s := newSystem(t)
			var last [senders]int // written by the actor alone; the race detector watches
			running := int32(0)
			ref := s.Spawn(Config{Name: "sum", Depth: [4]int{0, 0, 64, 0}}, receiver(func(msg any) {
				if atomic.AddInt32(&running, 1) != 1 {
					t.Error("two goroutines in one receiver")
				}
				defer atomic.AddInt32(&running, -1)
				switch m := msg.(type) {
				case [2]int:
					if last[m[0]]++; last[m[0]] != m[1] {
						t.Errorf("sender %d: message %d arrived as number %d", m[0], m[1], last[m[0]])
					}
				case func():
					m()
				}
			}))
			tell := ref.Tell
			if how == "TellHere" {
				tell = ref.TellHere
			}
			var busy atomic.Int64
			var wg sync.WaitGroup
			for sender := range senders {
				wg.Go(func() {
					for i := 1; i <= each; {
						switch err := tell(GrantLane, [2]int{sender, i}); err {
						case nil:
							i++
						case ErrBusy:
							busy.Add(1)
							runtime.Gosched()
						default:
							t.Errorf("tell: %v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			flush(t, ref.Tell)
			for sender, n := range last {
				if n != each {
					t.Errorf("sender %d: %d of %d arrived", sender, n, each)
				}
			}
			t.Logf("%d refusals", busy.Load())
		})
	}
}

func TestTellHereRunsAnIdleActorOnTheCaller(t *testing.T) {
	s := newSystem(t)
	ran := false // not synchronised: only right if the caller itself runs the receiver
	ref := s.Spawn(Config{Name: "here"}, receiver(func(msg any) {
		if f, ok := msg.(func()); ok {
			f()
			return
		}
		ran = true
	}))
	flush(t, ref.Tell)
	// The flush is delivered inside a turn that has yet to go idle.
	for !idle(ref) {
		runtime.Gosched()
	}
	if err := ref.TellHere(GrantLane, 1); err != nil || !ran {
		t.Fatalf("TellHere returned %v before the message was handled", err)
	}
}

func idle(r *Ref) bool {
	r.box.mu.Lock()
	defer r.box.mu.Unlock()
	return !r.box.scheduled
}

func TestAnActorMayTellItself(t *testing.T) {
	s := newSystem(t)
	done := make(chan int)
	var ref *Ref
	ready := make(chan struct{})
	ref = s.Spawn(Config{Name: "self"}, receiver(func(msg any) {
		<-ready
		n := msg.(int)
		if n == 0 {
			close(done)
			return
		}
		if err := ref.Tell(SystemLane, n-1); err != nil {
			t.Errorf("tell self: %v", err)
		}
	}))
	close(ready)
	if err := ref.Tell(SystemLane, 100); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestStopForgetsWhatWaitsAndFinishesTheMessageAtHand(t *testing.T) {
	s := newSystem(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	var handled []any
	ref := s.Spawn(Config{Name: "slow"}, receiver(func(msg any) {
		handled = append(handled, msg)
		close(entered)
		<-leave
	}))
	for i := range 3 {
		if err := ref.Tell(GrantLane, i); err != nil {
			t.Fatal(err)
		}
	}
	<-entered
	stopped := ref.Stop()
	select {
	case <-stopped:
		t.Fatal("stopped while the receiver runs")
	default:
	}
	if err := ref.Tell(SystemLane, "late"); err != ErrStopped {
		t.Fatalf("tell after stop: %v, want ErrStopped", err)
	}
	close(leave)
	<-stopped
	<-ref.Stop() // a second stop answers too
	if len(handled) != 1 {
		t.Fatalf("handled %v, want the message at hand alone", handled)
	}
	if err := ref.TellHere(QueryLane, "later"); err != ErrStopped {
		t.Fatalf("tell after the end: %v, want ErrStopped", err)
	}
}

func TestAReceiverMayStopItself(t *testing.T) {
	s := newSystem(t)
	var ref *Ref
	ready := make(chan struct{})
	ref = s.Spawn(Config{Name: "last word"}, receiver(func(any) { <-ready; ref.Stop() }))
	close(ready)
	if err := ref.TellHere(GrantLane, 1); err != nil {
		t.Fatal(err)
	}
	<-ref.done
}

func TestStopRacesWithSenders(t *testing.T) {
	for range 200 {
		s := newSystem(t)
		var after atomic.Bool
		ref := s.Spawn(Config{Name: "x"}, receiver(func(any) {
			if after.Load() {
				t.Error("the receiver ran after Stop's channel was closed")
			}
		}))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ref.TellHere(GrantLane, 1) != ErrStopped {
				}
			})
		}
		<-ref.Stop()
		after.Store(true)
		wg.Wait()
	}
}

func TestAPanicOfAStatefulActorEndsTheProcess(t *testing.T) {
	var log bytes.Buffer
	var exits []int
	s := NewSystem(slog.New(slog.NewTextHandler(&log, nil)), WithExit(func(code int) { exits = append(exits, code) }))
	handled := 0
	ref := s.Spawn(Config{Name: "device/ram-0", Stateful: true}, receiver(func(any) { handled++; panic("torn") }))
	for range 2 {
		if err := ref.Tell(GrantLane, 1); err != nil && err != ErrStopped {
			t.Fatal(err)
		}
	}
	<-ref.done
	if len(exits) != 1 || exits[0] != ExitPanic || handled != 1 || ref.Panics() != 1 {
		t.Fatalf("exits %v, %d messages handled, %d panics", exits, handled, ref.Panics())
	}
	if err := ref.Tell(GrantLane, 1); err != ErrStopped {
		t.Fatalf("tell to a failed actor: %v, want ErrStopped", err)
	}
	for _, want := range []string{"device/ram-0", "torn", "system_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not name %q:\n%s", want, log.String())
		}
	}
	shutdown(t, s)
}

func TestOnPanicReplacesThePolicy(t *testing.T) {
	s := newSystem(t, WithExit(func(int) { t.Error("exit called") }))
	type failure struct {
		name  string
		v     any
		stack string
	}
	failures := make(chan failure, 1)
	var ref *Ref
	ready := make(chan struct{})
	ref = s.Spawn(Config{Name: "pool", Stateful: true, OnPanic: func(name string, v any, stack []byte) {
		if err := ref.Tell(GrantLane, 2); err != ErrStopped {
			t.Errorf("tell to an actor that just failed: %v, want ErrStopped", err)
		}
		failures <- failure{name, v, string(stack)}
	}}, receiver(func(any) { <-ready; panic("x") }))
	close(ready)
	if err := ref.Tell(GrantLane, 1); err != nil {
		t.Fatal(err)
	}
	f := <-failures
	if f.name != "pool" || f.v != "x" || !strings.Contains(f.stack, "TestOnPanicReplacesThePolicy") {
		t.Fatalf("OnPanic got %+v", f)
	}
	<-ref.done
}

type restarted struct {
	receiver
	restarts int
}

func (r *restarted) Restart() { r.restarts++ }

func TestAStatelessActorGoesOnInPlace(t *testing.T) {
	s := newSystem(t, WithExit(func(int) { t.Error("exit called") }))
	r := &restarted{receiver: func(msg any) { msg.(func())() }}
	ref := s.Spawn(Config{Name: "analytics"}, r)
	for range 50 { // more than any library's patience
		if err := ref.Tell(GrantLane, func() { panic("again") }); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, ref.Tell)
	if r.restarts != 50 || ref.Panics() != 50 {
		t.Fatalf("%d restarts, %d panics, want 50 each", r.restarts, ref.Panics())
	}
}

func TestAFullSystemLaneIsADefect(t *testing.T) {
	exits := make(chan int, 1)
	s := newSystem(t, WithExit(func(code int) { exits <- code }))
	entered, leave := make(chan struct{}), make(chan struct{})
	ref := s.Spawn(Config{Name: "device", Stateful: true, Depth: [4]int{2, 0, 0, 0}}, receiver(func(msg any) {
		close(entered)
		<-leave
	}))
	if err := ref.Tell(SystemLane, 0); err != nil {
		t.Fatal(err)
	}
	<-entered
	for range 2 {
		if err := ref.Tell(SystemLane, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := ref.Tell(SystemLane, 2); !errors.Is(err, ErrOverflow) {
		t.Fatalf("result over the cap: %v, want ErrOverflow", err)
	}
	if code := <-exits; code != ExitPanic {
		t.Fatalf("exit %d", code)
	}
	close(leave)
	<-ref.done
}

func TestShutdownNamesWhoStillRuns(t *testing.T) {
	s := NewSystem(nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	stuck := s.Spawn(Config{Name: "stuck"}, receiver(func(any) { close(entered); <-leave }))
	s.Spawn(Config{Name: "quick"}, receiver(func(any) {}))
	s.Spawn(Config{Name: "quick"}, receiver(func(any) {})) // a name may be used twice
	if err := stuck.Tell(GrantLane, 1); err != nil {
		t.Fatal(err)
	}
	<-entered
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("time is up"))
	err := s.Shutdown(ctx)
	if err == nil || !strings.Contains(err.Error(), "stuck") || !strings.Contains(err.Error(), "time is up") {
		t.Fatalf("shutdown: %v", err)
	}
	close(leave)
	shutdown(t, s)
	shutdown(t, s) // once more does no harm
	defer func() {
		if recover() == nil {
			t.Error("spawn after shutdown went through")
		}
	}()
	s.Spawn(Config{Name: "late"}, receiver(func(any) {}))
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	s := newSystem(t)
	ref := s.Spawn(Config{Name: "x"}, receiver(func(any) {}))
	msg := any(new(int))
	n := testing.AllocsPerRun(1000, func() {
		if err := ref.TellHere(GrantLane, msg); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Fatalf("%.1f allocations a message", n)
	}
}

// TestASystemCostsLittle holds the library to its share of an idle node's memory.
func TestASystemCostsLittle(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before, begin := heap(), time.Now()
	s := newSystem(t)
	took := time.Since(begin)
	system := heap() - before
	for range 16 {
		s.Spawn(Config{Name: "x"}, receiver(func(any) {}))
	}
	each := (heap() - before - system) / 16
	t.Logf("a system takes %d KiB and %v, an actor %d bytes", system>>10, took, each)
	if system > 256<<10 || each > 16<<10 {
		t.Errorf("a system takes %d KiB, want at most 256; an actor %d bytes, want at most 16 KiB", system>>10, each)
	}
}

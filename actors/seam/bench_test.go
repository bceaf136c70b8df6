package seam

import (
	"github.com/isobar-project/isobar/clock"
	"runtime"
	"testing"
	"time"
)

func benchSystem(b *testing.B, f func(any)) *Ref {
	b.Helper()
	s := NewSystem(nil)
	b.Cleanup(func() { _ = s.Shutdown(b.Context()) })
	return s.Spawn(Config{Name: "bench"}, receiver(f))
}

func tellAll(b *testing.B, ref *Ref, tell func(Lane, any) error, n int, msg any) {
	for range n {
		for tell(GrantLane, msg) == ErrBusy {
			runtime.Gosched()
		}
	}
}

// BenchmarkMessage is the cost of one message in a stream from one sender.
func BenchmarkMessage(b *testing.B) {
	done := make(chan struct{})
	n, want := 0, b.N
	ref := benchSystem(b, func(any) {
		if n++; n == want {
			close(done)
		}
	})
	msg := any(new(int))
	b.ReportAllocs()
	b.ResetTimer()
	tellAll(b, ref, ref.Tell, b.N, msg)
	<-done
}

// BenchmarkMessageManySenders is the same from 64 senders.
func BenchmarkMessageManySenders(b *testing.B) {
	done := make(chan struct{})
	n, want := 0, b.N
	ref := benchSystem(b, func(any) {
		if n++; n == want {
			close(done)
		}
	})
	msg := any(new(int))
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			tellAll(b, ref, ref.Tell, 1, msg)
		}
	})
	<-done
}

// BenchmarkRoundTripIdle is from Tell to an idle actor until the sender's own
// goroutine, parked, has the answer: two switches of goroutine.
func BenchmarkRoundTripIdle(b *testing.B) {
	answer := make(chan struct{}, 1)
	ref := benchSystem(b, func(any) { answer <- struct{}{} })
	msg := any(new(int))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		_ = ref.Tell(GrantLane, msg)
		<-answer
	}
}

// BenchmarkRoundTripIdleHere is the same by TellHere.
func BenchmarkRoundTripIdleHere(b *testing.B) {
	answer := make(chan struct{}, 1)
	ref := benchSystem(b, func(any) { answer <- struct{}{} })
	msg := any(new(int))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		_ = ref.TellHere(GrantLane, msg)
		<-answer
	}
}

// BenchmarkWakeFromRest is from Tell to the receiver's first instruction when the
// whole process was at rest for a millisecond before, as a node mostly is.
func BenchmarkWakeFromRest(b *testing.B) {
	for name, tell := range map[string]func(*Ref) func(Lane, any) error{
		"Tell":     func(r *Ref) func(Lane, any) error { return r.Tell },
		"TellHere": func(r *Ref) func(Lane, any) error { return r.TellHere },
	} {
		b.Run(name, func(b *testing.B) {
			arrived := make(chan time.Duration, 1)
			var told time.Time
			ref := benchSystem(b, func(any) { arrived <- time.Since(told) })
			send := tell(ref)
			var total time.Duration
			for range b.N {
				rested := make(chan struct{})
				clock.Real().AfterFunc(time.Millisecond, func() { close(rested) })
				<-rested
				told = time.Now()
				_ = send(GrantLane, nil)
				total += <-arrived
			}
			b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns-to-receive")
		})
	}
}

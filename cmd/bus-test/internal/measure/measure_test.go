package measure_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
)

func ExampleDurations_At() {
	var d measure.Durations
	for i := 100; i > 0; i-- {
		d = append(d, time.Duration(i))
	}
	fmt.Println(d.At(0.5), d.At(0.99), d.At(1))
	// Output: 50ns 99ns 100ns
}

func TestMedian(t *testing.T) {
	if got := measure.Median([]float64{9, 1, 2}); got != 2 {
		t.Errorf("of three: %v", got)
	}
	if got := measure.Median([]float64{4, 1, 2, 9}); got != 3 {
		t.Errorf("of four: %v", got)
	}
	if got := measure.Median(nil); !math.IsNaN(got) {
		t.Errorf("of none: %v", got)
	}
}

func TestRunTakesEverySampleAndStopsAtAnError(t *testing.T) {
	took, wall, err := measure.Run(7, 100, func(int) error { return nil })
	if err != nil || len(took) != 100 || wall <= 0 {
		t.Fatalf("%d samples in %s, %v", len(took), wall, err)
	}
	bad := errors.New("bad")
	if _, _, err := measure.Run(2, 100, func(w int) error {
		if w == 1 {
			return bad
		}
		return nil
	}); !errors.Is(err, bad) {
		t.Fatal(err)
	}
}

func TestProcessOfOurselves(t *testing.T) {
	p, err := measure.ProcessOf(os.Getpid())
	if err != nil || p.RSSAnonBytes < 100<<10 {
		t.Fatalf("%+v, %v", p, err)
	}
	if e := measure.Here(); e.CPUs < 1 || e.Kernel == "" || e.MemoryBytes == 0 {
		t.Fatalf("%+v", e)
	}
}

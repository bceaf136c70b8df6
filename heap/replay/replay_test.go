package replay

import (
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	models "github.com/isobar-project/isobar/eviction/replay"
)

// traces is where the published traces lie, from this package's folder; the variable
// TRACES names another place.
func traces() string {
	if dir := os.Getenv("TRACES"); dir != "" {
		return dir
	}
	return "../../../shared/traces/alloc"
}

// TestArenas holds the heap to the arenas that it is known for. Large are the five
// traces of machine learning, odd those of minimalloc.
func TestArenas(t *testing.T) {
	all, err := Allocations(traces())
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("TRACES") == "" {
		t.Logf("%v: synthetic ones instead", err)
		for _, a := range Synthetic(1) {
			if got := a.Smallest(); got < 1 || got > 1.6 {
				t.Errorf("%s needs %.2f of its peak", a.Name, got)
			}
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string][]float64{}
	for _, a := range all {
		got := a.Smallest()
		groups[a.Group()] = append(groups[a.Group()], got)
		if strings.Contains(a.Name, "pangu") && got > 1.13 {
			t.Errorf("%s needs %.2f of its peak, was 1.13", a.Name, got)
		}
	}
	if len(groups[GroupLarge]) != 5 || len(groups[GroupMinimalloc]) != 11 {
		return // others than the published ones
	}
	if got := GeometricMean(groups[GroupLarge]); got > 1.047 || got == 0 {
		t.Errorf("the large traces need %.3f of their peak, were 1.035", got)
	}
	if got := GeometricMean(groups[GroupMinimalloc]); got > 1.50 || got == 0 {
		t.Errorf("minimalloc needs %.3f of its peak, was 1.448", got)
	}
}

// TestTaxes: models in segments cost hardly more reloading than counted bytes, and far
// less than in one plain arena. Two runs agree.
func TestTaxes(t *testing.T) {
	trace := models.Synthetic(3, 1500)
	first, err := Taxes(trace)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Taxes(trace)
	if err != nil {
		t.Fatal(err)
	}
	sum := map[Memory]float64{}
	for i, x := range first {
		if x != again[i] {
			t.Errorf("%+v, then %+v", x, again[i])
		}
		sum[x.Memory] += x.Seconds
	}
	if sum[Segmented] > 1.02*sum[Counted] || sum[Contiguous] < 1.03*sum[Counted] {
		t.Errorf("seconds by memory: %v", sum)
	}
}

func TestFoldersAreChecked(t *testing.T) {
	if _, err := Allocations(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for name, rows := range map[string]string{
		"columns": "id,lower,size\n1,2,3\n",
		"number":  "id,lower,upper,size\n1,2,x,3\n",
		"time":    "id,lower,upper,size\n1,2,2,3\n",
		"size":    "id,lower,upper,size\n1,2,3,0\n",
	} {
		dir := t.TempDir()
		f, err := os.Create(dir + "/a.csv.gz")
		if err != nil {
			t.Fatal(err)
		}
		z := gzip.NewWriter(f)
		if _, err := z.Write([]byte(rows)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(z.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Allocations(dir); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestCurve: with room made by moving blocks every trace succeeds in little more than its
// peak, and moves less than it allocates.
func TestCurve(t *testing.T) {
	all, err := Allocations(traces())
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("TRACES") == "" {
		all, err = Synthetic(1), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	passes := 0
	for _, a := range all {
		for _, m := range slices.Concat(a.Curve([]float64{1.02, 1.1}, false), a.Curve([]float64{1.5}, true)) {
			if m.PerByte < 0 || m.PerByte > 1 {
				t.Errorf("%s: %+v", a.Name, m)
			}
			passes += m.Passes
		}
	}
	if passes == 0 {
		t.Error("nothing was ever moved: the test shows nothing")
	}
}

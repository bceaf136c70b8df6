package replay

import (
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Allocs is one trace of allocations.
type Allocs struct {
	Name   string
	Sizes  []int64 // bytes, by id
	Events []Event // in order of time
	Peak   int64   // the most bytes that live at once
	Live   int     // the most blocks that live at once
}

// Event is an allocation, or a free, of the block with that id.
type Event struct {
	ID   int32
	Free bool
}

// lifetime is a row of a trace: [lower, upper) in logical time.
type lifetime struct{ lower, upper, size int64 }

// Allocations reads every *.csv.gz of a folder, in the order of their names. Columns are
// id, lower, upper and size. Where there are none the error is fs.ErrNotExist.
func Allocations(dir string) ([]*Allocs, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.csv.gz"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no trace of allocations in %s: %w", dir, fs.ErrNotExist)
	}
	var out []*Allocs
	for _, p := range paths {
		rows, err := lifetimes(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		out = append(out, newAllocs(strings.TrimSuffix(filepath.Base(p), ".csv.gz"), rows))
	}
	return out, nil
}

func lifetimes(path string) (out []lifetime, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	defer unpacked.Close()
	rows := csv.NewReader(unpacked)
	rows.ReuseRecord = true
	head, err := rows.Read()
	if err != nil {
		return nil, err
	}
	at := [3]int{slices.Index(head, "lower"), slices.Index(head, "upper"), slices.Index(head, "size")}
	if slices.Min(at[:]) < 0 {
		return nil, errors.New("no column lower, upper or size")
	}
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		var v [3]int64
		for i, column := range at {
			if v[i], err = strconv.ParseInt(row[column], 10, 64); err != nil {
				return nil, err
			}
		}
		if v[0] >= v[1] || v[2] < 1 {
			return nil, fmt.Errorf("row %d: %d bytes from %d to %d", len(out), v[2], v[0], v[1])
		}
		out = append(out, lifetime{v[0], v[1], v[2]})
	}
}

// newAllocs puts the allocations and frees of lifetimes in order: by time, frees first,
// then by id.
func newAllocs(name string, rows []lifetime) *Allocs {
	a := &Allocs{Name: name}
	type moment struct {
		at int64
		e  Event
	}
	moments := make([]moment, 0, 2*len(rows))
	for i, r := range rows {
		a.Sizes = append(a.Sizes, r.size)
		moments = append(moments, moment{r.lower, Event{ID: int32(i)}}, moment{r.upper, Event{ID: int32(i), Free: true}})
	}
	slices.SortFunc(moments, func(x, y moment) int {
		if x.at == y.at && x.e.Free != y.e.Free {
			if x.e.Free {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.e.ID, y.e.ID))
	})
	bytes, live := int64(0), 0
	for _, m := range moments {
		a.Events = append(a.Events, m.e)
		if m.e.Free {
			bytes -= a.Sizes[m.e.ID]
			live--
			continue
		}
		bytes += a.Sizes[m.e.ID]
		live++
		a.Peak, a.Live = max(a.Peak, bytes), max(a.Live, live)
	}
	return a
}

// Synthetic makes traces of the shape of the real ones, for where those are not to be had:
// one of a training step (the same layers' tensors, in then out again, with temporaries),
// and one of random lifetimes with few, large blocks.
func Synthetic(seed int64) []*Allocs {
	random := rand.New(rand.NewSource(seed))
	var step []lifetime
	const layers = 48
	for l := range int64(layers) {
		for range 4 { // weights and their gradients
			step = append(step, lifetime{0, 4 * layers * 32, 4 << 20})
		}
		from, to := l*32, 4*layers*32-l*64-1
		for i := range int64(8) { // activations wait for the way back
			step = append(step, lifetime{from + i*3, to - i*5, 1 << (14 + random.Intn(10))})
		}
		for i := range int64(16) { // temporaries of both ways
			size := int64(256 << random.Intn(16))
			step = append(step, lifetime{from + i, from + i + 2, size}, lifetime{to - 2 - 2*i, to - 2*i, 2 * size})
		}
	}
	var odd []lifetime
	for range 300 {
		from := random.Int63n(1 << 20)
		odd = append(odd, lifetime{from, from + 1 + int64(math.Exp(4+9*random.Float64())), 1024 * (1 + int64(math.Exp(6*random.Float64())))})
	}
	return []*Allocs{newAllocs("synthetic_step", step), newAllocs("synthetic_odd", odd)}
}

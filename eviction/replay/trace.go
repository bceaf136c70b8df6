package replay

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/isobar-project/isobar/eviction"
)

// The cost models of a trace.
const (
	Measured  = "measured"
	Bandwidth = "bandwidth"
)

// Trace is a sequence of requests and assignments of sizes and costs to models.
type Trace struct {
	// Requests hold, in order, which models each needs: indices into Models.
	Requests [][]int
	// Models are the models' names.
	Models []string
	// Assignments say, by seed, what the models are like.
	Assignments []Assignment
	// Bounds are the proven lower bounds.
	Bounds []Bound
}

// Assignment gives each model its size and its costs.
type Assignment struct {
	Seed string
	// Costs are by cost model and then by model.
	Costs map[string][]eviction.Object
}

// Bound is the seconds of reloading that no schedule can undercut.
type Bound struct {
	Cost, Seed string
	Fraction   float64 // of the bytes of all models
	Capacity   int64   // bytes
	Seconds    float64
}

// unnamed stands for the model that requests name by an empty string.
const unnamed = "(unnamed)"

// Read reads gentd26_requests.csv.gz, gentd26_models.csv.gz and
// gentd26_lower_bounds.csv of a folder. Where there are none the error is
// fs.ErrNotExist.
func Read(dir string) (*Trace, error) {
	t := &Trace{}
	index := make(map[string]int)
	model := func(name string) int {
		if name == "" {
			name = unnamed
		}
		i, ok := index[name]
		if !ok {
			i = len(t.Models)
			index[name] = i
			t.Models = append(t.Models, name)
		}
		return i
	}
	err := each(filepath.Join(dir, "gentd26_requests.csv.gz"), []string{"base", "loras"}, func(v []string) error {
		needs := []int{model(v[0])}
		for lora := range strings.SplitSeq(v[1], ";") {
			if lora != "" {
				if i := model(lora); !slices.Contains(needs, i) {
					needs = append(needs, i)
				}
			}
		}
		t.Requests = append(t.Requests, needs)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = each(filepath.Join(dir, "gentd26_models.csv.gz"),
		[]string{"seed", "model", "size_bytes", "cost_measured_s", "cost_bandwidth_s"}, func(v []string) error {
			i := model(v[1])
			a := t.assignment(v[0])
			size, err := strconv.ParseInt(v[2], 10, 64)
			if err != nil {
				return err
			}
			for n, cost := range []string{Measured, Bandwidth} {
				seconds, err := strconv.ParseFloat(v[3+n], 64)
				if err != nil {
					return err
				}
				for len(a.Costs[cost]) <= i {
					a.Costs[cost] = append(a.Costs[cost], eviction.Object{})
				}
				a.Costs[cost][i] = eviction.Object{Key: t.Models[i], Bytes: size, Cost: seconds}
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	err = each(filepath.Join(dir, "gentd26_lower_bounds.csv"),
		[]string{"cost", "seed", "capacity_fraction", "capacity_bytes", "lower_bound_s"}, func(v []string) error {
			fraction, err1 := strconv.ParseFloat(v[2], 64)
			capacity, err2 := strconv.ParseInt(v[3], 10, 64)
			seconds, err3 := strconv.ParseFloat(v[4], 64)
			t.Bounds = append(t.Bounds, Bound{v[0], v[1], fraction, capacity, seconds})
			return errors.Join(err1, err2, err3)
		})
	if err != nil {
		return nil, err
	}
	return t, t.check()
}

// check makes sure that every model that is asked for has a size everywhere.
func (t *Trace) check() error {
	for _, a := range t.Assignments {
		for cost, objects := range a.Costs {
			for i, name := range t.Models {
				if i >= len(objects) || objects[i].Bytes <= 0 {
					return fmt.Errorf("assignment %s, cost %s: no size for model %s", a.Seed, cost, name)
				}
			}
		}
	}
	return nil
}

func (t *Trace) assignment(seed string) *Assignment {
	for i := range t.Assignments {
		if t.Assignments[i].Seed == seed {
			return &t.Assignments[i]
		}
	}
	t.Assignments = append(t.Assignments, Assignment{Seed: seed, Costs: make(map[string][]eviction.Object)})
	return &t.Assignments[len(t.Assignments)-1]
}

// each calls f with the named columns of each row of a file.
func each(path string, columns []string, f func(values []string) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var in io.Reader = file
	if strings.HasSuffix(path, ".gz") {
		unpacked, err := gzip.NewReader(file)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer unpacked.Close()
		in = unpacked
	}
	rows := csv.NewReader(in)
	rows.ReuseRecord = true
	head, err := rows.Read()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	at := make([]int, len(columns))
	for i, c := range columns {
		if at[i] = slices.Index(head, c); at[i] < 0 {
			return fmt.Errorf("%s: no column %s", path, c)
		}
	}
	values := make([]string, len(columns))
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			for i, c := range at {
				values[i] = row[c]
			}
			err = f(values)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

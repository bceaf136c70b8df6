package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/node"
)

// The node becomes the program with the driver of GPUs where that is of use and possible, and
// its vault is always of the static one.
func TestBecomesTheProgramWithTheDriver(t *testing.T) {
	const beside, here = "/usr/bin/isobar-cuda", node.NVIDIAControl
	library := []string{"run", "--cuda-library", "/fake.so"}
	for name, c := range map[string]struct {
		args  []string
		files []string
		cuda  bool
		want  bool
	}{
		"a machine with GPUs":                 {[]string{"run"}, []string{beside, here}, false, true},
		"a machine without":                   {[]string{"run"}, []string{beside}, false, false},
		"the program is missing":              {[]string{"run"}, []string{here}, false, false},
		"it is the program already":           {[]string{"run"}, []string{beside, here}, true, false},
		"GPUs are off":                        {[]string{"run", "--gpus", "off"}, []string{beside, here}, false, false},
		"other devices are named":             {[]string{"run", "--device", "ram:ram-0=1GiB"}, []string{beside, here}, false, false},
		"other devices are named, all GPUs":   {[]string{"run", "--device", "ram:ram-0=1GiB", "--gpus", "on"}, []string{beside, here}, false, true},
		"a GPU is named":                      {[]string{"run", "--device", "cuda:gpu-0"}, []string{beside, here}, false, true},
		"a driver is named":                   {library, []string{beside}, false, true},
		"a driver is named, and no program":   {library, nil, false, false},
		"a driver is named, and GPUs are off": {append(library, "--gpus", "off"), []string{beside}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture()
			f.cuda = c.cuda
			f.exists = func(path string) bool { return slices.Contains(c.files, path) || path == "/usr/bin/isobar" }
			if c.cuda {
				f.executable = func() (string, error) { return beside, nil }
			}
			var became []string
			f.become = func(path string, args []string) error {
				became = append([]string{path}, args...)
				return errors.New("gone")
			}
			var vault string
			f.program.node = func(_ context.Context, cfg node.Config, _ func(node.Info)) error {
				vault = cfg.VaultCommand[0]
				return nil
			}
			code := f.run(t, c.args...)
			if !c.want {
				if became != nil || code != exitDone || vault != "/usr/bin/isobar" {
					t.Errorf("became %q, exit code %d, vault %q: %s", became, code, vault, f.err)
				}
				return
			}
			if want := append([]string{beside, "isobar"}, c.args...); !slices.Equal(became, want) || code != exitRefused {
				t.Errorf("became %q, not %q; exit code %d", became, want, code)
			}
			if !strings.Contains(f.err.String(), "--gpus off") {
				t.Errorf("the way out is not named: %s", f.err)
			}
		})
	}
}

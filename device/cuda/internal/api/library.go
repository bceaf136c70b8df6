//go:build linux

package api

import (
	"fmt"
	"strings"

	"github.com/ebitengine/purego"

	"github.com/isobar-project/isobar/device"
)

// The names of the libraries as NVIDIA's driver installs them.
const (
	DefaultCUDA = "libcuda.so.1"
	DefaultNVML = "libnvidia-ml.so.1"
)

// entry is one function of a library.
type entry struct {
	name string
	addr uintptr
}

// want is an entry point to look up: under its name or, where that is missing, under the
// other. Optional ones may be missing.
type want struct {
	to       *entry
	name, or string
	optional bool
}

// library is an opened shared library. It stays open for the life of the process: threads
// of the driver run in it.
type library struct {
	name   string
	handle uintptr
}

// open loads a library. what names it for people, fix says how to get it.
func open(name, what, fix string) (*library, error) {
	h, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%w: %s (%s) cannot be loaded: %w; %s", device.ErrUnsupported, what, name, err, fix)
	}
	return &library{name: name, handle: h}, nil
}

// lookup finds one entry point.
func (l *library) lookup(name string) (entry, bool) {
	addr, err := purego.Dlsym(l.handle, name)
	if err != nil || addr == 0 {
		return entry{}, false
	}
	return entry{name: name, addr: addr}, true
}

// bind finds all of a list, or says which are missing.
func (l *library) bind(list []want) error {
	var missing []string
	for _, w := range list {
		e, ok := l.lookup(w.name)
		if !ok && w.or != "" {
			e, ok = l.lookup(w.or)
		}
		if !ok && !w.optional {
			missing = append(missing, w.name)
		}
		*w.to = e
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s has no %s; install a newer NVIDIA driver (525 or later)", device.ErrUnsupported, l.name, strings.Join(missing, ", "))
	}
	return nil
}

// there tells whether an optional entry point was found.
func (e entry) there() bool { return e.addr != 0 }

// call calls the function. Pointers are converted in the argument list, nowhere else:
// then what they point to stays where it is until the call returns.
//
//go:uintptrescapes
func (e entry) call(args ...uintptr) int32 {
	r, _, _ := purego.SyscallN(e.addr, args...)
	return int32(r)
}

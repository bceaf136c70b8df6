//go:build linux

package fake

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebitengine/purego"
)

//go:embed src
var sources embed.FS

// FileName is what Build calls the library.
const FileName = "libisobarfakecuda.so"

// Build compiles the library into dir with the C compiler that CC names, or cc.
func Build(dir string) (path string, err error) {
	entries, err := sources.ReadDir("src")
	if err != nil {
		return "", err
	}
	args := []string{"-shared", "-fPIC", "-O2", "-Wall", "-o", filepath.Join(dir, FileName)}
	for _, e := range entries {
		text, err := sources.ReadFile("src/" + e.Name())
		if err != nil {
			return "", err
		}
		file := filepath.Join(dir, e.Name())
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", err
		}
		if strings.HasSuffix(file, ".c") {
			args = append(args, file)
		}
	}
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"cc"}
	}
	out, err := exec.Command(cc[0], append(append(cc[1:], args...), "-lpthread")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("fake: build the driver: %w\n%s", err, out)
	}
	return filepath.Join(dir, FileName), nil
}

// Library is the fake driver in this process, and its controls. All methods may be called from
// any goroutine, except that Configure comes first.
type Library struct {
	configure func(devices int32, bytes int64, state string)
	fail      func(call string, nth, code int32)
	hold      func(call string, on int32)
	lose      func(device int32)
	process   func(device, pid int32, bytes int64)
	errors    func(device int32, count int64)
	xid       func(device, xid int32)
	linked    func(on int32)
	live      func(kind int32) int32
	calls     func(call string) int64
	await     func(call string, n int32) int32
	cost      func(call string, ns int64)
	record    func(on int32)
	recorded  func(out *rawCall, max int32) int32
}

// Open loads what Build made. A copy of the file under another name is another driver.
func Open(path string) (l *Library, err error) {
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("fake: %w", err)
	}
	l = &Library{}
	for name, f := range map[string]any{
		"isobarFakeConfigure": &l.configure, "isobarFakeFail": &l.fail, "isobarFakeHold": &l.hold, "isobarFakeLose": &l.lose,
		"isobarFakeProcess": &l.process, "isobarFakeErrors": &l.errors, "isobarFakeXid": &l.xid, "isobarFakeLinked": &l.linked, "isobarFakeLive": &l.live,
		"isobarFakeCalls": &l.calls, "isobarFakeAwait": &l.await,
		"isobarFakeCost": &l.cost, "isobarFakeRecord": &l.record, "isobarFakeRecorded": &l.recorded,
	} {
		addr, err := purego.Dlsym(h, name)
		if err != nil {
			return nil, fmt.Errorf("fake: %w", err)
		}
		purego.RegisterFunc(f, addr)
	}
	return l, nil
}

// Configure says what there is, in place of the environment; state "" is none.
func (l *Library) Configure(devices int, bytes int64, state string) error {
	if devices < 0 || devices > 8 || bytes <= 0 {
		return errors.New("fake: 0 to 8 devices of more than 0 bytes")
	}
	l.configure(int32(devices), bytes, state)
	return nil
}

// Fail makes the n-th call of that name from now fail with a CUresult or an nvmlReturn_t; 1 is
// the next, 0 none.
func (l *Library) Fail(call string, n, code int) { l.fail(call, int32(n), int32(code)) }

// Hold keeps calls of that name from returning while on.
func (l *Library) Hold(call string, on bool) {
	n := int32(0)
	if on {
		n = 1
	}
	l.hold(call, n)
}

// Await waits until n calls of that name are kept from returning by Hold; false if they do not
// come in half a minute.
func (l *Library) Await(call string, n int) bool { return l.await(call, int32(n)) != 0 }

// Cost says how long calls of that name take from now on, before they do anything; what waits in a
// stream takes no time.
func (l *Library) Cost(call string, d time.Duration) { l.cost(call, int64(d)) }

// Call is one call that was recorded. The beginnings and endings of all calls of the process,
// a call's being that of what it costs, are counted as turns: what began at a lower one began
// before.
type Call struct {
	Name string
	// Begin and End are turns; End is 0 while the call has not ended.
	Begin, End int64
}

// rawCall is a Call as the library has it.
type rawCall struct {
	name       [64]byte
	begin, end int64
}

// maxRecorded is how many calls are recorded at most.
const maxRecorded = 1 << 14

// Record begins to record calls, by all threads of this process; the function that it returns
// ends it and says what was called, in the order of beginnings. 16384 calls are kept.
func (l *Library) Record() (end func() []Call) {
	l.record(0)
	l.record(1)
	return func() []Call {
		l.record(0)
		raw := make([]rawCall, maxRecorded)
		out := make([]Call, l.recorded(&raw[0], maxRecorded))
		for i := range out {
			name, _, _ := bytes.Cut(raw[i].name[:], []byte{0})
			out[i] = Call{string(name), raw[i].begin, raw[i].end}
		}
		return out
	}
}

// Calls is how many calls of that name this process has made, those that failed included.
func (l *Library) Calls(call string) int { return int(l.calls(call)) }

// Lose makes a device fall off the bus, for every process and for good.
func (l *Library) Lose(device int) { l.lose(int32(device)) }

// Process plays a process that uses so many bytes by itself; 0 is one that has ended.
func (l *Library) Process(device, pid int, bytes int64) { l.process(int32(device), int32(pid), bytes) }

// Errors sets how many memory errors were not corrected.
func (l *Library) Errors(device, count int) { l.errors(int32(device), int64(count)) }

// Xid reports a critical error.
func (l *Library) Xid(device, xid int) { l.xid(int32(device), int32(xid)) }

// Linked says whether the devices reach each other's memory, as they do at first.
func (l *Library) Linked(on bool) {
	n := int32(0)
	if on {
		n = 1
	}
	l.linked(n)
}

// Live is what this process has not given back.
type Live struct{ Memory, Ranges, Streams, Events, Pinned, Contexts int }

// Live counts it.
func (l *Library) Live() Live {
	n := func(kind int32) int { return int(l.live(kind)) }
	return Live{n(0), n(1), n(2), n(3), n(4), n(5)}
}

package stall_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/device/hostmem"
	"github.com/isobar-project/isobar/device/stall"
)

// kernel is a machine whose files and events a test makes.
type kernel struct {
	t     *testing.T
	root  string
	least time.Duration // the shortest window of triggers; 0: there are none
	fire  map[string]func(error)
	specs []string
}

func (k *kernel) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func (k *kernel) armed(key string, fired func(error)) func() {
	k.fire[key] = fired
	return func() { delete(k.fire, key) }
}

func (k *kernel) Trigger(path, spec string, fired func(error)) (func(), error) {
	var kind string
	var wait, window int64
	if _, err := fmt.Sscanf(spec, "%s %d %d", &kind, &wait, &window); err != nil {
		return nil, err
	}
	if k.least == 0 {
		return nil, fs.ErrPermission
	}
	if time.Duration(window)*time.Microsecond < k.least {
		return nil, unix.EINVAL
	}
	k.specs = append(k.specs, spec)
	return k.armed(path+" "+kind, fired), nil
}

func (k *kernel) Changed(path string, fired func(error)) (func(), error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	return k.armed(path, fired), nil
}

func (k *kernel) PressureLevel(dir, level string, fired func(error)) (func(), error) {
	if _, err := os.Stat(filepath.Join(dir, "memory.pressure_level")); err != nil {
		return nil, err
	}
	return k.armed(dir+" "+level, fired), nil
}

func (k *kernel) Close() error { return nil }

func (k *kernel) write(path, text string) {
	k.t.Helper()
	path = filepath.Join(k.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		k.t.Fatal(err)
	}
}

// event fires what was armed under a name that ends so.
func (k *kernel) event(name string, err error) {
	k.t.Helper()
	for key, f := range k.fire {
		if strings.HasSuffix(key, name) {
			f(err)
			return
		}
	}
	k.t.Fatalf("nothing was armed under %q", name)
}

const pressureFile = "some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=%d\n"

type world struct {
	*kernel
	clock *clock.Manual
	said  []device.Signal
	watch *stall.Watch
}

func newWorld(t *testing.T, least time.Duration) *world {
	w := &world{kernel: &kernel{t: t, root: t.TempDir(), least: least, fire: map[string]func(error){}}}
	w.clock = clock.NewManual(clock.Instant(time.Hour), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	return w
}

func (w *world) open(groups ...hostmem.Group) {
	w.t.Helper()
	for i := range groups {
		groups[i].Dir = filepath.Join(w.root, groups[i].Dir)
	}
	var err error
	w.watch, err = stall.Open(stall.Config{Root: w.root, Groups: groups, Kernel: w.kernel, Clock: w.clock,
		Report: func(s device.Signal) { w.said = append(w.said, s) }})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.watch.Close() })
}

// expect takes what was said since, as "severity hold" or "lost".
func (w *world) expect(when string, want ...string) {
	w.t.Helper()
	var got []string
	for _, s := range w.said {
		text := fmt.Sprint([...]string{"calm", "tight", "dire"}[s.Severity], " ", s.Hold)
		if s.Lost {
			text = "lost"
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: %q, want %q: %+v", when, got, want, w.said)
	}
	w.said = nil
}

func TestTriggersOfTheShortestWindowThatIsAllowed(t *testing.T) {
	for _, c := range []struct {
		least time.Duration
		spec  string
		hold  string
	}{{500 * time.Millisecond, "some 50000 500000", "1s"}, {2 * time.Second, "some 200000 2000000", "4s"}} {
		w := newWorld(t, c.least)
		w.write("proc/pressure/memory", fmt.Sprintf(pressureFile, 1, 1))
		w.open()
		if len(w.specs) != 2 || w.specs[0] != c.spec {
			t.Errorf("armed %q, want %q first", w.specs, c.spec)
		}
		w.expect("at first")
		w.event("memory some", nil)
		w.event("memory full", nil)
		w.expect("both fired", "tight "+c.hold, "dire "+c.hold)
	}
}

func TestALostTriggerIsAskedForAgain(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	w.write("proc/pressure/memory", fmt.Sprintf(pressureFile, 1, 1))
	w.open()
	w.event("memory full", unix.ENODEV)
	w.event("memory some", unix.ENODEV)
	w.expect("both are gone", "lost")
	w.least = 0
	w.clock.Advance(10 * time.Second)
	w.expect("still gone")
	w.least = time.Millisecond
	w.clock.Advance(10 * time.Second)
	w.expect("back", "calm 0s")
	w.event("memory some", nil)
	w.expect("and heard", "tight 1s")
}

func TestWithoutTriggersTheFileIsRead(t *testing.T) {
	w := newWorld(t, 0)
	set := func(some, full int) {
		w.write("proc/pressure/memory", fmt.Sprintf(pressureFile, some, full))
	}
	set(5_000_000, 1_000_000)
	w.open()
	w.expect("at first", "calm 0s")
	for _, c := range []struct {
		some, full int
		want       []string
	}{
		{5_099_990, 1_000_000, nil},
		{5_200_000, 1_050_000, []string{"tight 2s"}},
		{5_400_000, 1_150_001, []string{"dire 2s"}},
		{5_400_000, 1_150_001, nil},
	} {
		set(c.some, c.full)
		w.clock.Advance(time.Second)
		w.expect(fmt.Sprint(c.some, " ", c.full), c.want...)
	}
	w.write("proc/pressure/memory", "nonsense\n")
	w.clock.Advance(time.Second)
	w.expect("unreadable", "lost")
	set(9, 9)
	w.clock.Advance(10 * time.Second)
	w.expect("readable again", "calm 0s")
}

func TestGroupEventsCountWhenNoCacheIsLeft(t *testing.T) {
	w := newWorld(t, 0)
	events := func(high, limit, oom, kill int) {
		w.write("g/memory.events", fmt.Sprintf("low 0\nhigh %d\nmax %d\noom %d\noom_kill %d\n", high, limit, oom, kill))
	}
	stat := func(file, shmem int) {
		w.write("g/memory.current", "3200000\n")
		w.write("g/memory.stat", fmt.Sprintf("anon 5\nfile %d\nshmem %d\n", file, shmem))
	}
	events(7, 0, 0, 0)
	stat(2_000_000, 1_000_000)
	w.open(hostmem.Group{Version: 2, Dir: "g"})
	if s := w.watch.Sources(); len(s) != 1 || !strings.HasSuffix(s[0], "g/memory.events") {
		t.Fatalf("sources %q", s)
	}
	changed := func() { w.event("memory.events", nil) }
	events(8, 0, 0, 0)
	changed()
	w.expect("memory.high is crossed and a megabyte of cache is left")
	stat(1_099_999, 1_000_000)
	changed()
	w.expect("nothing rose since")
	events(9, 0, 0, 0)
	changed()
	w.expect("crossed with hardly any left", "tight 2s")
	events(9, 1, 0, 0)
	changed()
	w.expect("memory.max is hit", "dire 2s")
	stat(2_000_000, 0)
	events(10, 2, 0, 0)
	changed()
	w.expect("hit, with cache to drop")
	events(10, 2, 1, 0)
	changed()
	w.expect("out of memory, whatever the cache", "dire 2s")
	events(10, 2, 1, 1)
	changed()
	w.expect("a kill", "dire 2s")
	os.Remove(filepath.Join(w.root, "g/memory.events"))
	changed()
	w.expect("the group is gone", "lost")
}

func TestPressureLevelsOfVersionOne(t *testing.T) {
	w := newWorld(t, 0)
	w.write("g/memory.pressure_level", "")
	w.write("g/memory.usage_in_bytes", "3200000\n")
	w.write("g/memory.stat", "cache 1\ntotal_cache 900000\ntotal_shmem 0\n")
	w.open(hostmem.Group{Version: 1, Dir: "g"}, hostmem.Group{Version: 1, Dir: "none"})
	if len(w.watch.Sources()) != 1 {
		t.Fatalf("sources %q", w.watch.Sources())
	}
	w.event("g medium", nil)
	w.expect("medium with cache to drop")
	w.write("g/memory.stat", "cache 1\ntotal_cache 900000\ntotal_shmem 900000\n")
	w.event("g medium", nil)
	w.event("g critical", nil)
	w.expect("without", "tight 2s", "dire 2s")
	if w.watch.Close(); len(w.fire) != 0 {
		t.Errorf("closed, and still armed: %v", w.fire)
	}
}

// On this machine's kernel: whatever it offers can be armed, a change of a file is heard,
// and closing ends it all.
func TestThisMachine(t *testing.T) {
	dir := t.TempDir()
	counters := func(high int) {
		t.Helper()
		for name, text := range map[string]string{"memory.current": "1000\n", "memory.stat": "file 0\nshmem 0\n",
			"memory.events": fmt.Sprintf("high %d\nmax 0\noom 0\noom_kill 0\n", high)} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	counters(1)
	reader, err := hostmem.NewReader(hostmem.Config{})
	if err != nil {
		t.Fatal(err)
	}
	groups, err := reader.Groups()
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	once := sync.OnceFunc(func() { close(heard) })
	w, err := stall.Open(stall.Config{Groups: append(groups, hostmem.Group{Version: 2, Dir: dir}), Report: func(s device.Signal) {
		if s.Source == filepath.Join(dir, "memory.events") && s.Severity == device.Tight {
			once()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if len(w.Sources()) == 0 {
		t.Fatal("not even the test's own file can be heard")
	}
	counters(2)
	select {
	case <-heard:
	case <-time.After(30 * time.Second):
		t.Error("a change was not heard")
	}
}

func Example() {
	dir, _ := os.MkdirTemp("", "stall")
	defer os.RemoveAll(dir)
	w, err := stall.Open(stall.Config{Root: dir, Report: func(device.Signal) {}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Close()
	fmt.Println(len(w.Sources()), "sources on a machine without any")
	// Output: 0 sources on a machine without any
}

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// model writes a model of so many bytes of weights, and reads it once so that it is cached.
func (w *world) model(name string, bytes int64) (string, error) {
	path := filepath.Join(w.models(), name+".safetensors")
	w.say("writing a model of %d MiB", bytes/mib)
	if err := weightstest.Sized(bytes, 7).WriteSafetensors(path); err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// On the disk before anything is measured: writing it back would disturb.
	if err := f.Sync(); err != nil {
		return "", err
	}
	b := make([]byte, mib)
	for {
		if n, err := f.Read(b); n == 0 {
			_ = err // the end
			return path, nil
		}
	}
}

// loadModel loads a model and tells how long it took, for the client and by the node.
func loadModel(ctx context.Context, c *client.Client, name, path string) (took time.Duration, r schemas.LoadModelReply, err error) {
	at := time.Now()
	err = c.Do(ctx, schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: name, Path: path}, &r, nil, client.WithWait(time.Minute))
	return time.Since(at), r, err
}

func unloadModel(ctx context.Context, c *client.Client, name string) error {
	return c.Do(ctx, schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: name}, nil, nil)
}

// loadLine is the rate at which a cached file is loaded, beside a bare pread loop with the
// same number of threads into a fresh memfd of the same pages.
type loadLine struct {
	w          *world
	c          *client.Client
	path       string
	bytes      int64
	threads    int
	huge       bool
	ours, bare measure.Durations
}

func (l *loadLine) open(ctx context.Context, w *world) error {
	l.w, l.bytes = w, int64(w.count(1*gib, 64*mib))
	n, err := w.mainNode(ctx)
	if err != nil {
		return err
	}
	l.threads, l.huge = n.LoadWorkers, hugePages()
	if l.c, err = w.client(n.URL, client.Options{}); err != nil {
		return err
	}
	l.path, err = w.model("load", l.bytes)
	return err
}

func (l *loadLine) slice(ctx context.Context, at int) error {
	for k := range 2 {
		if (k+at)%2 == 0 {
			took, _, err := loadModel(ctx, l.c, "load", l.path)
			if err != nil {
				return err
			}
			l.ours = append(l.ours, took)
			if err := unloadModel(ctx, l.c, "load"); err != nil {
				return err
			}
			continue
		}
		took, err := barePread(l.path, l.threads, l.huge)
		if err != nil {
			return err
		}
		l.bare = append(l.bare, took)
	}
	return nil
}

func (l *loadLine) report(r *Report) {
	r.Raw["load_cached"], r.Raw["load_bare_pread"] = l.ours.Summary(0), l.bare.Summary(0)
	r.Raw["load_bytes"], r.Raw["load_threads"], r.Raw["load_huge_pages"] = l.bytes, l.threads, l.huge
	r.Raw["load_bytes_per_second"] = round(float64(l.bytes) / l.ours.At(0.5).Seconds())
	var a, b []float64
	for i := range l.ours {
		a, b = append(a, float64(l.bare[i])), append(b, float64(l.ours[i]))
	}
	r.set(keyLoad, over(a, b))
}

func (l *loadLine) close() {}

// loadedLine is allocate while a large model is loaded, at a steady rate, beside the same
// without; and what the load loses by it. Commands come at a fixed rate, idle or not: a
// closed loop would take a core for itself.
type loadedLine struct {
	w            *world
	c            *client.Client
	pair         *pairLine
	path         string
	bytes        int64
	idle, loaded measure.Durations
	alone, with  []float64
}

// loadedPace is the time between two allocates.
const loadedPace = 2 * time.Millisecond

func (l *loadedLine) open(ctx context.Context, w *world) error {
	l.w, l.bytes = w, int64(w.count(4*gib, 96*mib))
	n, err := w.mainNode(ctx)
	if err != nil {
		return err
	}
	// The file in the cache, the model, and what else is on the machine.
	l.bytes = min(l.bytes, freeMemory()/3/(2*mib)*(2*mib))
	if l.c, err = w.client(n.URL, client.Options{}); err != nil {
		return err
	}
	l.pair = &pairLine{key: "loaded", named: true}
	if err := l.pair.open(ctx, w); err != nil {
		return err
	}
	l.path, err = w.model("large", l.bytes)
	return err
}

func (l *loadedLine) slice(ctx context.Context, _ int) error {
	alone, _, err := loadModel(ctx, l.c, "large", l.path)
	if err != nil {
		return err
	}
	if err := unloadModel(ctx, l.c, "large"); err != nil {
		return err
	}
	idle := make(chan struct{})
	timer := time.AfterFunc(alone, func() { close(idle) })
	err = l.paced(idle, &l.idle)
	timer.Stop()
	if err != nil {
		return err
	}
	done := make(chan struct{})
	failed := make(chan error, 1)
	go func() { failed <- l.paced(done, &l.loaded) }()
	with, _, err := loadModel(ctx, l.c, "large", l.path)
	close(done)
	if perr := <-failed; err == nil {
		err = perr
	}
	if err != nil {
		return err
	}
	l.alone, l.with = append(l.alone, alone.Seconds()), append(l.with, with.Seconds())
	return unloadModel(ctx, l.c, "large")
}

// paced allocates and deallocates at the pace until done. What comes late because its
// predecessor was slow starts at once.
func (l *loadedLine) paced(done <-chan struct{}, into *measure.Durations) error {
	tick := time.NewTicker(loadedPace)
	defer tick.Stop()
	l.pair.taking = into
	defer func() { l.pair.taking = nil }()
	for {
		select {
		case <-done:
			return nil
		case <-tick.C:
			if err := l.pair.pair(0); err != nil {
				return err
			}
		}
	}
}

func (l *loadedLine) report(r *Report) {
	r.Raw["paced_allocate_idle"], r.Raw["paced_allocate_loaded"] = l.idle.Summary(0), l.loaded.Summary(0)
	r.Raw["large_load_bytes"] = l.bytes
	r.Raw["large_load_seconds_alone"], r.Raw["large_load_seconds_with"] = round(measure.Median(l.alone)), round(measure.Median(l.with))
	r.set(keyLoadedP99, float64(l.loaded.At(0.99))/float64(l.idle.At(0.99)))
	r.set(keyLoadKept, over(l.alone, l.with))
}

func (l *loadedLine) close() {}

// freeMemory is what can be had without pushing anything out, as the kernel estimates it.
func freeMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err == nil {
		var kib int64
		for line := range lines(text) {
			if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
				return kib << 10
			}
		}
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		return int64(s.Freeram) * int64(s.Unit)
	}
	return gib
}

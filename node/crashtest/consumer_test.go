package crashtest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// order is what a test tells a consumer, answer what it says.
type order struct {
	Do     string // dial, map, unmap, ping, look, fork
	Socket string
	Claims []string
	// Seed is the pattern of the first claim's memory, the next claim has the next one. A
	// grant that is mapped read-write is filled with it.
	Seed  uint64
	Write bool
	// Model: the memory is a model of so many bytes, with the seed of its claim.
	Model int64
	ID    string
}

type answer struct {
	Err     string
	Session string
	IDs     []string
	PID     int
	Look    look
}

// look is what a consumer's reader has seen so far.
type look struct {
	Mapped, Segments int
	Passes           int64         // over everything that is mapped
	Gap              time.Duration // the longest time between the ends of two passes
	Bad              string        // the first byte that was not as it should be
	Resumed, New     int           // reconnections, with and without the session
	Lost             []string
}

// stride is between two places that are written and read: simulated memory is sparse, and
// stays so.
const (
	stride = 2 << 20
	probe  = 64
)

// held is one grant that a consumer reads.
type held struct {
	m     *client.Mapping
	seed  uint64
	model int64
}

// consumer maps grants and reads them without end.
type consumer struct {
	c    *client.Client
	mu   sync.Mutex
	held map[string]*held
	some chan struct{} // something was mapped
	look look
}

// runConsumer is a consumer's process. Its reader takes little of the processor
// where others want it.
func runConsumer() int {
	unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
	x := &consumer{held: map[string]*held{}, some: make(chan struct{}, 1)}
	go x.read()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if in.Decode(&o) != nil {
			return 0
		}
		a, err := x.obey(o)
		if err != nil {
			a.Err = err.Error()
		}
		a.PID = os.Getpid()
		out.Encode(a)
	}
}

func (x *consumer) obey(o order) (a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch o.Do {
	case "dial":
		x.c, err = client.Dial(ctx, client.Config{SocketPath: o.Socket, Name: "crashtest", OnResume: x.resumed})
		if err == nil {
			a.Session = x.c.Session().ID
		}
	case "map":
		for i, claim := range o.Claims {
			var id string
			if id, err = x.add(ctx, claim, o, uint64(i)); err != nil {
				return a, err
			}
			a.IDs = append(a.IDs, id)
		}
	case "unmap":
		x.mu.Lock()
		defer x.mu.Unlock()
		for id, h := range x.held {
			if o.ID == "" || o.ID == id {
				delete(x.held, id)
				if err := x.c.Unmap(ctx, h.m); err != nil {
					return a, err
				}
			}
		}
	case "ping":
		err = x.c.Ping(ctx)
	case "fork":
		var pid int
		if pid, err = fork(); err == nil {
			a.IDs = []string{fmt.Sprint(pid)}
		}
	}
	if o.Do != "unmap" {
		x.mu.Lock()
		defer x.mu.Unlock()
	}
	a.Look = x.look
	a.Look.Mapped = len(x.held)
	for _, h := range x.held {
		a.Look.Segments += len(h.m.Segments)
	}
	return a, err
}

func (x *consumer) resumed(r client.Resumption) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.Resumed {
		x.look.Resumed++
	} else {
		x.look.New++
	}
	x.look.Lost = append(x.look.Lost, r.Lost...)
	if r.Err != nil {
		x.look.Lost = append(x.look.Lost, r.Err.Error())
	}
}

func (x *consumer) add(ctx context.Context, claim string, o order, n uint64) (string, error) {
	mode := client.ReadOnly
	if o.Write {
		mode = client.ReadWrite
	}
	m, err := x.c.Map(ctx, claim, mode)
	if err != nil {
		return "", err
	}
	h := &held{m: m, seed: o.Seed + n, model: o.Model}
	if o.Write {
		h.each(func(b []byte, off int64) string {
			pattern(h.seed, off, b)
			return ""
		})
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held[m.AllocationID] = h
	select {
	case x.some <- struct{}{}:
	default:
	}
	return m.AllocationID, nil
}

// each calls f with the places of a grant that are written and read: the beginning of
// each stride, and the end of each segment.
func (h *held) each(f func(b []byte, off int64) string) string {
	off := int64(0)
	for i := range h.m.Segments {
		b := h.m.Segments[i].Bytes
		for at := 0; at < len(b); at += stride {
			if bad := f(b[at:at+probe], off+int64(at)); bad != "" {
				return bad
			}
		}
		last := len(b) - probe
		if bad := f(b[last:], off+int64(last)); bad != "" {
			return bad
		}
		off += int64(len(b))
	}
	return ""
}

// pattern fills b with what a grant's bytes from off on should be.
func pattern(seed uint64, off int64, b []byte) {
	for len(b) >= 8 {
		v := (seed+1)*0x9e3779b97f4a7c15 ^ uint64(off)*0xff51afd7ed558ccd
		binary.LittleEndian.PutUint64(b, v)
		b, off = b[8:], off+8
	}
}

// check says what in a grant is not as it should be.
func (h *held) check() string {
	if h.model != 0 {
		spec := weightstest.Sized(h.model, h.seed)
		for i, t := range spec.Tensors {
			b := h.m.Tensor(t.Name)
			if n, _ := t.Bytes(); int64(len(b)) != n {
				return fmt.Sprintf("tensor %s has %d bytes", t.Name, len(b))
			}
			if err := spec.Check(i, 0, b[:min(len(b), 1<<10)]); err != nil {
				return err.Error()
			}
		}
		return ""
	}
	want := make([]byte, probe)
	return h.each(func(b []byte, off int64) string {
		pattern(h.seed, off, want)
		if string(b) != string(want[:len(b)]) {
			return fmt.Sprintf("the bytes at %d are %x, not %x", off, b, want)
		}
		return ""
	})
}

// read goes over everything that is mapped, again and again. It holds the lock for one
// grant at a time, so that an order waits for that alone.
func (x *consumer) read() {
	last := clock.Real().Now()
	for {
		x.mu.Lock()
		ids := make([]string, 0, len(x.held))
		for id := range x.held {
			ids = append(ids, id)
		}
		x.mu.Unlock()
		if len(ids) == 0 {
			<-x.some
			last = clock.Real().Now()
		}
		for _, id := range ids {
			x.mu.Lock()
			if h := x.held[id]; h != nil {
				if bad := h.check(); bad != "" && x.look.Bad == "" {
					x.look.Bad = id + ": " + bad
				}
			}
			x.mu.Unlock()
		}
		now := clock.Real().Now()
		x.mu.Lock()
		if len(ids) > 0 {
			x.look.Passes++
			if x.look.Passes > 1 {
				x.look.Gap = max(x.look.Gap, now.Sub(last))
			}
		}
		x.mu.Unlock()
		last = now
	}
}

// lingers is the descriptor that a forked child reads: it ends when the test closes the
// other end.
const lingers = 3

// rawFork makes a child that has everything that is mapped here, and does nothing. Nothing
// of the language's runtime works in it: it makes system calls alone.
//
//go:norace
//go:nosplit
func rawFork() (pid uintptr, errno unix.Errno) {
	pid, _, errno = unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	var b [1]byte
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READ, lingers, uintptr(unsafe.Pointer(&b)), 1)
		if e != unix.EINTR || n == 0 {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
}

func fork() (int, error) {
	pid, errno := rawFork()
	if errno != 0 {
		return 0, errno
	}
	return int(pid), nil
}

// consumerProcess is a consumer in a process of its own.
type consumerProcess struct {
	*process
	session string
	linger  *os.File // closed: forked children end
}

// consume starts a consumer and its session.
func consume(t testing.TB, n *nodeProcess) *consumerProcess {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Cleanup(func() { w.Close() })
	c := &consumerProcess{process: spawn(t, []*os.File{r}, roleConsumer), linger: w}
	c.session = c.tell(order{Do: "dial", Socket: n.hello.Info.DataSocket}).Session
	return c
}

// tell gives an order that must succeed.
func (c *consumerProcess) tell(o order) answer {
	c.t.Helper()
	var a answer
	if err := json.NewEncoder(c.in).Encode(o); err != nil {
		c.t.Fatal(err)
	}
	if err := c.out.Decode(&a); err != nil {
		c.t.Fatalf("the consumer died: %v", err)
	}
	if a.Err != "" {
		c.t.Fatalf("%s: %s", o.Do, a.Err)
	}
	return a
}

// sound checks that no byte was ever wrong and returns what the reader saw.
func (c *consumerProcess) sound() look {
	c.t.Helper()
	l := c.tell(order{Do: "look"}).Look
	if l.Bad != "" {
		c.t.Fatalf("consumer %d read: %s", c.pid(), l.Bad)
	}
	return l
}

// again waits until the reader has gone over everything after now.
func (c *consumerProcess) again() look {
	c.t.Helper()
	from := c.sound().Passes
	limit := clock.Real().Now().Add(patience)
	for {
		if l := c.sound(); l.Passes >= from+2 {
			return l
		}
		if clock.Real().Now() > limit {
			c.t.Fatalf("consumer %d stands still after %d passes", c.pid(), from)
		}
	}
}

package crashtest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/vault"
)

const (
	regionBytes = 256 << 10
	pageBytes   = 4096
)

// image is a region at one moment. Pages that did not change are shared between images.
type image [][]byte

// cut is all that a crash at one moment would leave: every region of the ledger, and
// which segments the vault held.
type cut struct {
	ledger   map[string]image
	segments []uint64
	contents map[uint64]image // of the segments, where the recorder keeps them
	answered int              // commands
}

// recorder is the memory and the vault of a house in this process. It takes a cut after
// every store to the ledger.
type recorder struct {
	t testing.TB

	mu       sync.Mutex // of cuts: one at a time
	cuts     []cut
	last     map[string]image
	answered func() int
	// keeps: the segments' bytes are part of a cut.
	keeps bool
	off   bool // no cuts are taken
	each  int  // one store in so many is cut after; 0 is all
	count int  // stores
	saw   map[uint64]image

	state   sync.Mutex // of what follows
	regions map[string][]byte
	held    map[uint64]*os.File // what the vault holds now
	ever    map[uint64]*os.File // what it ever held, in this life
	version uint64
}

func newRecorder(t testing.TB) *recorder {
	r := &recorder{t: t, last: map[string]image{}, regions: map[string][]byte{}, held: map[uint64]*os.File{}, ever: map[uint64]*os.File{}, answered: func() int { return 0 }}
	return r
}

// close lets go of everything.
func (r *recorder) close() {
	for _, m := range r.regions {
		unix.Munmap(m)
	}
	for _, f := range r.ever {
		f.Close()
	}
}

// Put and Drop are the vault's. A descriptor is the same open file as the node's.
func (r *recorder) Put(entries ...vault.Entry) error {
	for _, e := range entries {
		fd, err := unix.FcntlInt(e.File.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), e.Label)
		r.state.Lock()
		if old := r.ever[e.ID]; old != nil && r.held[e.ID] != nil {
			r.t.Errorf("vault id %d was put twice", e.ID)
		}
		r.held[e.ID], r.ever[e.ID] = f, f
		r.version++
		r.state.Unlock()
	}
	return nil
}

func (r *recorder) Drop(ids ...uint64) error {
	r.state.Lock()
	defer r.state.Unlock()
	for _, id := range ids {
		delete(r.held, id)
	}
	r.version++
	return nil
}

// bytes are those of the segments in the vault.
func (r *recorder) bytes() (sum int64) {
	r.state.Lock()
	defer r.state.Unlock()
	for _, f := range r.held {
		if st, err := f.Stat(); err == nil {
			sum += st.Size()
		}
	}
	return sum
}

// memory gives an actor its region; it is inherited if the recorder began from a cut.
func (r *recorder) memory(actor string) ([]byte, bool, error) {
	r.state.Lock()
	defer r.state.Unlock()
	if m, ok := r.regions[actor]; ok {
		return m, true, nil
	}
	m, err := unix.Mmap(-1, 0, regionBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		r.regions[actor] = m
		r.version++
	}
	return m, false, err
}

// crash is the house's hook: it takes a cut.
func (r *recorder) crash(point string) {
	if point != "ledger.store" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off {
		return
	}
	if r.count++; r.each > 0 && r.count%r.each != 0 {
		return
	}
	// Other actors store meanwhile. What reads the same twice was so at one moment.
	for {
		answered := r.answered()
		a, va := r.copy()
		contents := r.contents() // what the memory held while the ledger said so
		b, vb := r.copy()
		if va != vb || !same(a, b) {
			continue
		}
		r.state.Lock()
		ids := make([]uint64, 0, len(r.held))
		for id := range r.held {
			ids = append(ids, id)
		}
		still := r.version == vb
		r.state.Unlock()
		if !still {
			continue
		}
		r.last, r.saw = b, contents
		r.cuts = append(r.cuts, cut{ledger: b, segments: ids, contents: contents, answered: answered})
		return
	}
}

// copy reads every region, page by page.
func (r *recorder) copy() (map[string]image, uint64) {
	r.state.Lock()
	regions, version := maps.Clone(r.regions), r.version
	r.state.Unlock()
	out := map[string]image{}
	for name, mem := range regions {
		out[name] = pagesOf(mem, r.last[name])
	}
	return out, version
}

// contents reads every segment, page by page, where that is kept.
func (r *recorder) contents() map[uint64]image {
	if !r.keeps {
		return nil
	}
	r.state.Lock()
	held := maps.Clone(r.held)
	r.state.Unlock()
	out := map[uint64]image{}
	for id, f := range held {
		st, err := f.Stat()
		if err != nil {
			continue // dropped meanwhile: the version tells
		}
		mem := make([]byte, st.Size())
		if _, err := f.ReadAt(mem, 0); err != nil {
			continue
		}
		out[id] = pagesOf(mem, r.saw[id])
	}
	return out
}

// pagesOf cuts memory into pages, sharing those that are as in an older image.
func pagesOf(mem []byte, old image) image {
	im := make(image, len(mem)/pageBytes)
	for i := range im {
		page := mem[i*pageBytes : (i+1)*pageBytes]
		if len(old) == len(im) && bytes.Equal(old[i], page) {
			im[i] = old[i]
		} else {
			im[i] = bytes.Clone(page)
		}
	}
	return im
}

func same(a, b map[string]image) bool {
	if len(a) != len(b) {
		return false
	}
	for name, x := range a {
		for i, page := range x {
			if !bytes.Equal(page, b[name][i]) {
				return false
			}
		}
	}
	return true
}

// from makes a recorder that has what a crash at the cut left. Segments are the very ones
// of the life before, or new ones with the bytes of then.
func (r *recorder) from(c cut) (*recorder, map[uint64]*os.File, error) {
	next := newRecorder(r.t)
	for name, im := range c.ledger {
		m, err := unix.Mmap(-1, 0, regionBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return nil, nil, err
		}
		for i, page := range im {
			copy(m[i*pageBytes:], page)
		}
		next.regions[name] = m
	}
	inherited := map[uint64]*os.File{}
	for _, id := range c.segments {
		file := r.ever[id]
		if im, kept := c.contents[id]; kept {
			f, err := revived(file, im)
			if err != nil {
				return nil, nil, err
			}
			defer f.Close()
			file = f
		}
		if err := next.Put(vault.Entry{ID: id, File: file}); err != nil {
			return nil, nil, err
		}
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, nil, err
		}
		inherited[id] = os.NewFile(uintptr(fd), "inherited")
	}
	return next, inherited, nil
}

// revived is a memfd like an old one, with the bytes of an image.
func revived(old *os.File, im image) (*os.File, error) {
	fd, err := unix.MemfdCreate("revived", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	made := os.NewFile(uintptr(fd), "revived")
	defer made.Close()
	if err := made.Truncate(int64(len(im)) * pageBytes); err != nil {
		return nil, err
	}
	for i, page := range im {
		if _, err := made.WriteAt(page, int64(i)*pageBytes); err != nil {
			return nil, err
		}
	}
	seals, err := unix.FcntlInt(old.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, err
	}
	// The seal against being executed would bring others with it here: it is about the mode.
	if _, err := unix.FcntlInt(made.Fd(), unix.F_ADD_SEALS, seals&^unix.F_SEAL_EXEC); err != nil {
		return nil, err
	}
	// No lease is to be had on the description that memfd_create gives.
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", made.Fd()), os.O_RDWR, 0)
}

package weights

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Roots are the folders that model files may come from. A path is opened only
// through its root, component by component, so that neither "..", nor a symbolic
// link, nor one that is swapped in at the last moment leads out. Links that stay
// inside some root are followed.
//
// Roots hold no descriptors: a folder that is mounted later is seen. They may be
// used from any goroutine. The nil Roots allow nothing.
type Roots struct {
	dirs []string // as configured, absolute and clean
	free bool
}

// NewRoots checks that each is the absolute path of a folder that exists. The
// paths themselves are trusted: links in them are followed.
func NewRoots(dirs ...string) (*Roots, error) {
	r := &Roots{}
	for _, d := range dirs {
		if !filepath.IsAbs(d) {
			return nil, fmt.Errorf("model root %q: not an absolute path", d)
		}
		info, err := os.Stat(d)
		if err != nil {
			return nil, fmt.Errorf("model root: %w", err)
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("model root %q: not a folder", d)
		}
		if c := filepath.Clean(d); !slices.Contains(r.dirs, c) {
			r.dirs = append(r.dirs, c)
		}
	}
	return r, nil
}

// Unconfined lets every path of this process through. It is for tools and tests
// whose caller has the process's own rights, never for a path that came over the wire.
func Unconfined() *Roots { return &Roots{free: true} }

// Dirs are the roots as configured.
func (r *Roots) Dirs() []string {
	if r == nil {
		return nil
	}
	return slices.Clone(r.dirs)
}

// place is a folder or file inside one root. A model's other files are opened
// beside it through the same root.
type place struct {
	roots *Roots
	dir   string // the root's folder
	name  string // path relative to dir
}

// path is what people see.
func (p place) path() string { return filepath.Join(p.dir, p.name) }

// beside is another name in the same folder; inside is one in this folder.
func (p place) beside(base string) place {
	return place{p.roots, p.dir, filepath.Join(filepath.Dir(p.name), base)}
}

func (p place) inside(base string) place {
	return place{p.roots, p.dir, filepath.Join(p.name, base)}
}

// locate finds the roots that a path may mean, without touching what it names. A
// relative path is meant from each root in turn.
func (r *Roots) locate(path string) ([]place, error) {
	outside := &OutsideError{Path: path, Roots: r.Dirs()}
	if r == nil || path == "" || strings.ContainsRune(path, 0) {
		return nil, outside
	}
	if r.free {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, &ReadError{File: path, Err: err}
		}
		return []place{{r, "/", strings.TrimPrefix(abs, "/")}}, nil
	}
	var found []place
	for _, d := range r.dirs {
		if !filepath.IsAbs(path) {
			if filepath.IsLocal(path) {
				found = append(found, place{r, d, filepath.Clean(path)})
			}
			continue
		}
		bases := []string{d}
		if real, err := filepath.EvalSymlinks(d); err == nil && real != d {
			bases = append(bases, real)
		}
		for _, b := range bases {
			if rel, err := filepath.Rel(b, path); err == nil && filepath.IsLocal(rel) {
				found = append(found, place{r, d, rel})
				break
			}
		}
	}
	if len(found) == 0 {
		return nil, outside
	}
	return found, nil
}

// open opens a user's path in the first root that has it.
func (r *Roots) open(path string) (place, *os.File, error) {
	places, err := r.locate(path)
	if err != nil {
		return place{}, nil, err
	}
	var first error
	for _, p := range places {
		f, err := p.open()
		if err == nil {
			return p, f, nil
		}
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
	}
	return place{}, nil, first
}

// open opens the place for reading: without blocking on a pipe, and without
// leaving the roots. A link with an absolute target that lies in a root is resolved
// and opened anew through that root, where its own links are judged again.
func (p place) open() (*os.File, error) {
	f, err := p.openHere()
	if err == nil || p.roots.free || !escapes(err) {
		return f, p.wrap(err)
	}
	outside := &OutsideError{Path: p.path(), Roots: p.roots.Dirs()}
	real, rerr := filepath.EvalSymlinks(p.path())
	if rerr != nil {
		return nil, outside
	}
	places, rerr := p.roots.locate(real)
	if rerr != nil {
		return nil, outside
	}
	f, err = places[0].openHere()
	if err != nil && escapes(err) {
		return nil, outside
	}
	return f, p.wrap(err)
}

// openFlags: a pipe does not wait for its writer, a terminal is not taken over.
const openFlags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY

func (p place) openHere() (*os.File, error) {
	if p.roots.free { // no walls to keep: let the kernel follow every link
		return os.OpenFile(p.path(), openFlags, 0)
	}
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // a descriptor opened for reading
	return root.OpenFile(p.name, openFlags, 0)
}

func (p place) wrap(err error) error {
	if err == nil {
		return nil
	}
	return &ReadError{File: p.path(), Err: bare(err)}
}

// bare takes the path off an operating system's error: ReadError names it already.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// escapes reports whether os.Root refused to leave its folder. Its error is not
// exported; every other refusal carries the kernel's number.
func escapes(err error) bool {
	var errno unix.Errno
	return !errors.As(err, &errno)
}

package weights

import (
	"fmt"
	"path/filepath"
)

// Stamp is what the kernel said of the one file of a model. It tells without reading the
// file whether the path still leads to the same content, as ContentID judges it: device,
// inode, size and modification time. A Stamp may be used from any goroutine.
type Stamp struct {
	path string
	file File // without its descriptor
}

// Stamp remembers the file that Inspect found at path. It returns nil for a model that is
// more than the one file that path names: there only another Inspect can tell.
func (m *Model) Stamp(path string) *Stamp {
	if len(m.Files) != 1 || filepath.Base(m.Files[0].Path) != filepath.Base(path) {
		return nil
	}
	s := &Stamp{path: path, file: m.Files[0]}
	s.file.file = nil
	return s
}

// Same reports whether the path still leads to the file that was inspected. It blocks as
// opening a file does. The errors are those of Inspect for a file that cannot be opened:
// *ReadError and *OutsideError.
func (s *Stamp) Same(roots *Roots) (bool, error) {
	if roots == nil {
		return false, fmt.Errorf("weights: no roots to look for %s in", s.path)
	}
	at, f, err := roots.open(s.path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	now, err := describe(f, at.path())
	if err != nil {
		return false, err
	}
	was := &s.file
	return now.Device == was.Device && now.Inode == was.Inode && now.Bytes == was.Bytes && now.ModTime.Equal(was.ModTime), nil
}

package weights

import (
	"errors"
	"os"
	"sync"
	"time"
)

// Formats of a Model.
const (
	Safetensors = "safetensors"
	GGUF        = "gguf"
)

// Model describes a model's files without holding any of its weights. The fields
// are not to be changed; they may be read from any goroutine. The files stay open,
// so that what is loaded is what was described, until Close.
type Model struct {
	Format string
	// Files in the order of their names: one, or the shards.
	Files []File
	// Tensors in the order of their bytes: by file, then offset, then name.
	Tensors []Tensor
	// TotalBytes is the sum of the tensors' bytes.
	TotalBytes int64
	// ContentID tells models apart: see ContentID in the package's description.
	ContentID string
	// Metadata of the file: all of safetensors' __metadata__ (of several shards the
	// first that has a key wins); of GGUF the numbers, booleans and strings up to
	// 4 KiB, as text.
	Metadata map[string]string

	closing sync.Once
	closed  error
}

// File is one file of a model as it was when its header was read.
type File struct {
	Path        string // as found: inside its root, links not resolved
	Bytes       int64
	HeaderBytes int64 // bytes before the first that can belong to a tensor
	Device      uint64
	Inode       uint64
	ModTime     time.Time
	ChangeTime  time.Time // of the inode: also moved by writes that set ModTime back

	file *os.File
}

// Tensor is one tensor's name, type and place in the files.
type Tensor struct {
	Name string
	// DType is in safetensors' spelling (F32, BF16, F8_E4M3, …); GGUF's block types
	// are GGUF_ and ggml's name (GGUF_Q4_K).
	DType string
	// Shape is row-major, the innermost dimension last, in both formats (GGUF files
	// store it the other way round). Empty for a scalar.
	Shape []int64
	// File is the index into Model.Files.
	File       int
	FileOffset int64
	Bytes      int64
}

// Close closes the model's files. It must not be called while a Load of the model
// runs. Closing again is harmless and answers the same.
func (m *Model) Close() error {
	m.closing.Do(func() {
		var errs []error
		for i := range m.Files {
			if f := m.Files[i].file; f != nil {
				errs = append(errs, f.Close())
			}
		}
		m.closed = errors.Join(errs...)
	})
	return m.closed
}

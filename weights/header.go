package weights

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"
)

// Limits that no published model comes near; they bound what a lying file can cost.
const (
	maxNameBytes = 4096
	maxRank      = 64
)

// header is what one file's own header says, before it becomes part of a Model.
type header struct {
	format   string
	bytes    int64 // up to where tensors may begin
	tensors  []Tensor
	metadata map[string]string
	digest   [sha256.Size]byte // of the header's bytes
	split    split             // GGUF only
}

// parseHeader tells the formats apart by their first bytes and parses the file's
// header. path is only for errors.
func parseHeader(f *os.File, path string, size int64, o Options) (*header, error) {
	var magic [4]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &ReadError{File: path, Err: bare(err)}
	}
	if string(magic[:n]) == ggufMagic {
		return parseGGUF(f, path, size, o)
	}
	return parseSafetensors(f, path, size, o)
}

// readText reads a whole range that must be UTF-8, for the JSON readers.
func readText(f io.ReaderAt, path string, off, n int64) (string, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, off, n), b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return "", &FormatError{path, off, "file became shorter while its header was read"}
		}
		return "", &ReadError{File: path, Err: bare(err)}
	}
	if !utf8.Valid(b) {
		return "", &FormatError{path, off, "header is not UTF-8"}
	}
	return string(b), nil
}

// checkName refuses what cannot be a tensor's name.
func checkName(name string) error {
	if name == "" {
		return errors.New("tensor without a name")
	}
	if !utf8.ValidString(name) {
		return errors.New("tensor name is not UTF-8")
	}
	if len(name) > maxNameBytes {
		return fmt.Errorf("tensor name of %d bytes; at most %d", len(name), maxNameBytes)
	}
	return nil
}

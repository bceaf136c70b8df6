package weights

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// contentID hashes what tells this content apart without reading the weights. The
// package's description says what is covered; a change of that needs a new tag.
func (a *assembly) contentID() string {
	h := sha256.New()
	h.Write([]byte("isobar content 1\x00" + a.m.Format + "\x00"))
	number := func(n uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
	number(uint64(len(a.meta)))
	for _, d := range a.meta {
		h.Write(d)
	}
	number(uint64(len(a.parts)))
	for _, p := range a.parts {
		h.Write(p.header.digest[:])
		number(uint64(p.file.Bytes))
		number(p.file.Device)
		number(p.file.Inode)
		number(uint64(p.file.ModTime.UnixNano()))
	}
	return hex.EncodeToString(h.Sum(nil))
}

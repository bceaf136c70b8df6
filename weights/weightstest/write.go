package weightstest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/isobar-project/isobar/weights/internal/dtype"
)

// WriteSafetensors writes the model as one file, tensors in the Spec's order.
func (s Spec) WriteSafetensors(path string) error {
	all := make([]int, len(s.Tensors))
	for i := range all {
		all[i] = i
	}
	return s.writeSafetensors(path, all)
}

// WriteSharded writes the model into a folder as shards of up to shardBytes (a larger
// tensor has a shard of its own), with an index whose path it answers.
func (s Spec) WriteSharded(dir string, shardBytes int64) (index string, err error) {
	var shards [][]int
	room := int64(0)
	for i, t := range s.Tensors {
		n, err := t.Bytes()
		if err != nil {
			return "", err
		}
		if len(shards) == 0 || n > room {
			shards, room = append(shards, nil), shardBytes
		}
		shards[len(shards)-1] = append(shards[len(shards)-1], i)
		room -= n
	}
	homes := make(map[string]string)
	for k, tensors := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", k+1, len(shards))
		if err := s.writeSafetensors(filepath.Join(dir, name), tensors); err != nil {
			return "", err
		}
		for _, i := range tensors {
			homes[s.Tensors[i].Name] = name
		}
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": homes})
	if err != nil {
		return "", err
	}
	index = filepath.Join(dir, "model.safetensors.index.json")
	return index, os.WriteFile(index, text, 0o600)
}

func (s Spec) writeSafetensors(path string, tensors []int) error {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	members := make(map[string]any, len(tensors)+1)
	if s.Metadata != nil {
		members["__metadata__"] = s.Metadata
	}
	end := int64(0)
	for _, i := range tensors {
		t := s.Tensors[i]
		n, err := t.Bytes()
		if err != nil {
			return err
		}
		members[t.Name] = entry{t.DType, append([]int64{}, t.Shape...), [2]int64{end, end + n}}
		end += n
	}
	text, err := json.Marshal(members)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	head := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return s.write(path, append(head, text...), tensors, 1)
}

// WriteGGUF writes the model as one GGUF file of version 3. Metadata values become
// strings.
func (s Spec) WriteGGUF(path string) error {
	const alignment = 32
	le := binary.LittleEndian
	str := func(b []byte, v string) []byte {
		return append(le.AppendUint64(b, uint64(len(v))), v...)
	}
	head := le.AppendUint32([]byte("GGUF"), 3)
	head = le.AppendUint64(head, uint64(len(s.Tensors)))
	head = le.AppendUint64(head, uint64(len(s.Metadata)))
	for k, v := range s.Metadata {
		head = str(le.AppendUint32(str(head, k), 8), v)
	}
	offset := int64(0)
	all := make([]int, len(s.Tensors))
	for i, t := range s.Tensors {
		all[i] = i
		id, ok := dtype.GGMLID(t.DType)
		if !ok {
			return fmt.Errorf("tensor %q: GGUF has no dtype %q", t.Name, t.DType)
		}
		n, err := t.Bytes()
		if err != nil {
			return err
		}
		head = le.AppendUint32(str(head, t.Name), uint32(len(t.Shape)))
		for d := len(t.Shape) - 1; d >= 0; d-- {
			head = le.AppendUint64(head, uint64(t.Shape[d]))
		}
		head = le.AppendUint64(le.AppendUint32(head, id), uint64(offset))
		offset += (n + alignment - 1) / alignment * alignment
	}
	for len(head)%alignment != 0 {
		head = append(head, 0)
	}
	return s.write(path, head, all, alignment)
}

// write streams a header and the tensors' bytes, each padded to alignment.
func (s Spec) write(path string, head []byte, tensors []int, alignment int64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(head); err != nil {
		return err
	}
	out := chunked{to: f, buf: make([]byte, 0, 1<<20)}
	for _, i := range tensors {
		n, err := s.Tensors[i].Bytes()
		if err != nil {
			return err
		}
		for off := int64(0); off < n; {
			b, err := out.room(n - off)
			if err != nil {
				return err
			}
			s.Fill(i, off, b)
			off += int64(len(b))
		}
		for pad := (alignment - n%alignment) % alignment; pad > 0; {
			b, err := out.room(pad)
			if err != nil {
				return err
			}
			clear(b)
			pad -= int64(len(b))
		}
	}
	return out.flush()
}

// chunked lends room in a buffer that is written out when full.
type chunked struct {
	to  io.Writer
	buf []byte
}

// room is up to n bytes to fill before the next call.
func (c *chunked) room(n int64) ([]byte, error) {
	if len(c.buf) == cap(c.buf) {
		if err := c.flush(); err != nil {
			return nil, err
		}
	}
	old := len(c.buf)
	c.buf = c.buf[:old+int(min(n, int64(cap(c.buf)-old)))]
	return c.buf[old:], nil
}

func (c *chunked) flush() error {
	_, err := c.to.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}

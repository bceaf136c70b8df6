package weights_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/weights"
)

const sound = `{"__metadata__":{"format":"pt","é":"\ud83d\ude00"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`

func TestSafetensorsSound(t *testing.T) {
	m, err := inspectBytes(t, stBytes(sound, 28), weights.Options{})
	if err != nil {
		t.Fatal(err)
	}
	start := int64(8 + len(sound))
	want := []weights.Tensor{
		{Name: "a", DType: "U8", Shape: []int64{4}, FileOffset: start, Bytes: 4},
		{Name: "b", DType: "F32", Shape: []int64{2, 3}, FileOffset: start + 4, Bytes: 24},
	}
	if got := fmt.Sprint(m.Tensors); got != fmt.Sprint(want) {
		t.Errorf("tensors %v, want %v", got, want)
	}
	if m.Format != weights.Safetensors || m.TotalBytes != 28 || m.Files[0].HeaderBytes != start {
		t.Errorf("model %+v", m)
	}
	if m.Metadata["format"] != "pt" || m.Metadata["é"] != "😀" {
		t.Errorf("metadata %v", m.Metadata)
	}
}

// tolerated are headers that look odd but that the reference accepts too.
var tolerated = []struct {
	header string
	data   int
}{
	{`{}`, 0},
	{`{}      `, 0},
	{"\n { \"a\" : { \"dtype\" : \"F32\" , \"shape\" : [ ] , \"data_offsets\" : [ 0 , 4 ] } } ", 4},
	{`{"__metadata__":null}`, 0},
	{`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}}`, 0},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"new":{"x":[1.5e-3,true,null,"\u00e9",{}]}}}`, 4},
	{`{"a":{"dtype":"F4","shape":[6],"data_offsets":[0,3]}}`, 3},
	{`{"a":{"dtype":"F6_E3M2","shape":[2,2],"data_offsets":[0,3]}}`, 3},
}

func TestSafetensorsTolerated(t *testing.T) {
	for _, c := range tolerated {
		if _, err := inspectBytes(t, stBytes(c.header, c.data), weights.Options{}); err != nil {
			t.Errorf("%s: %v", c.header, err)
		}
	}
}

// lies are headers that must be refused, with this many bytes of data, and why.
var lies = []struct {
	header string
	data   int
	reason string
}{
	{``, 0, "end of text"},
	{`[]`, 0, `'['`},
	{`{}x`, 0, "after the end"},
	{`{} {}`, 0, "after the end"},
	{`{"a":1}`, 0, `'1'`},
	{`{"a":{}}`, 0, "missing"},
	{`{"a":{"dtype":"F32","shape":[1]}}`, 4, "missing"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`, 4, "end of text"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},}`, 4, `'}'`},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, "twice"},
	{`{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, "twice"},
	{`{"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8, "twice"},
	{`{"__metadata__":{},"__metadata__":{}}`, 0, "twice"},
	{`{"__metadata__":{"a":"b","a":"b"}}`, 0, "twice"},
	{`{"__metadata__":{"a":1}}`, 0, `'1'`},
	{`{"__metadata__":[]}`, 0, `'['`},
	{`{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, "without a name"},
	{`{"a":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}}`, 4, "unknown dtype"},
	{`{"a":{"dtype":"GGUF_Q4_K","shape":[256],"data_offsets":[0,144]}}`, 144, "unknown dtype"},
	{`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4, `'-'`},
	{`{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}`, 4, "not an integer"},
	{`{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}`, 4, "not an integer"},
	{`{"a":{"dtype":"F32","shape":[01],"data_offsets":[0,4]}}`, 4, "leading zero"},
	{`{"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}}`, 4, "63 bits"},
	{`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}`, 0, "overflows"},
	{`{"a":{"dtype":"F32","shape":[4611686018427387904,4,0],"data_offsets":[0,0]}}`, 0, "overflows"},
	{`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}`, 1, "whole bytes"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4, "before it begins"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}`, 8, "needs 4 bytes"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, 4, `']'`},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}`, 4, `','`},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8, "hole"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, 12, "hole"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}`, 6, "overlaps"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, "overlaps"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 3, "beyond the end"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 5, "belong to none"},
	{`{"a":{"dtype":"U8","shape":[9223372036854775],"data_offsets":[0,9223372036854775]}}`, 5, "beyond the end"},
	{"{\"a\x01\":1}", 0, "control character"},
	{"{\"a\xff\":1}", 0, "UTF-8"},
	{`{"\ud800":1}`, 0, "escape"},
	{`{"\ud800\u0041":1}`, 0, "escape"},
	{`{"\x":1}`, 0, "escape"},
	{`{"\u00`, 0, "escape"},
	{`{"a`, 0, "without an end"},
	{`{"a\n`, 0, "without an end"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"new":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}}`, 4, "nested deeper"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"new":tru}}`, 4, "due"},
	{`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"new":-}}`, 4, "digit"},
	{`{"a":{"dtype":"U8","shape":[` + strings.Repeat("1,", 64) + `1],"data_offsets":[0,1]}}`, 1, "more than 64 dimensions"},
	{`{"` + strings.Repeat("n", 4097) + `":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, "tensor name of 4097 bytes"},
}

func TestSafetensorsLies(t *testing.T) {
	for _, c := range lies {
		refused(t, stBytes(c.header, c.data), weights.Options{}, c.reason)
	}
}

// refused demands a FormatError with this reason, whose offset lies in the file.
func refused(t *testing.T, content []byte, o weights.Options, reason string) {
	t.Helper()
	_, err := inspectBytes(t, content, o)
	var fe *weights.FormatError
	switch {
	case !errors.As(err, &fe) || !errors.Is(err, weights.ErrInvalidModel) || errors.Is(err, weights.ErrNotReadable):
		t.Errorf("%.200q: %v, want a FormatError about %q", content, err, reason)
	case !strings.Contains(fe.Reason, reason) || fe.File != "model":
		t.Errorf("%.200q: %v, want it to be about %q", content, err, reason)
	case fe.Offset < 0 || fe.Offset > int64(len(content)):
		t.Errorf("%.200q: offset %d lies outside the file", content, fe.Offset)
	}
}

func TestSafetensorsPrefix(t *testing.T) {
	long := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), "{}"...) }
	refused(t, nil, weights.Options{}, "too short")
	refused(t, []byte("1234567"), weights.Options{}, "too short")
	refused(t, long(3), weights.Options{}, "more than the file holds")
	refused(t, long(100_000_001), weights.Options{}, "over the limit")
	refused(t, long(1<<63), weights.Options{}, "over the limit")
	refused(t, long(1<<64-1), weights.Options{}, "over the limit")
	refused(t, stBytes(sound, 28), weights.Options{MaxHeaderBytes: 20}, "over the limit of 20")
	refused(t, stBytes(sound, 28), weights.Options{MaxTensors: 1}, "more than 1 tensors")
}

func TestFormatErrorNamesTheByte(t *testing.T) {
	_, err := inspectBytes(t, stBytes(`{"a":{"dtype":"F32","shape":[x],"data_offsets":[0,4]}}`, 4), weights.Options{})
	var fe *weights.FormatError
	if !errors.As(err, &fe) || fe.Offset != 8+int64(strings.Index(`{"a":{"dtype":"F32","shape":[x]`, "x")) {
		t.Fatalf("got %v", err)
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(stBytes(sound, 28))
	for _, c := range tolerated {
		f.Add(stBytes(c.header, c.data))
	}
	for _, c := range lies {
		f.Add(stBytes(c.header, c.data))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := inspectBytes(t, content, weights.Options{})
		checkInspected(t, m, err, int64(len(content)))
	})
}

// checkInspected is what must hold of any answer about a file of this size.
func checkInspected(t *testing.T, m *weights.Model, err error, size int64) {
	t.Helper()
	if err != nil {
		if !errors.Is(err, weights.ErrInvalidModel) {
			t.Fatalf("not a format error: %v", err)
		}
		return
	}
	var sum, end int64
	names := make(map[string]bool)
	for _, x := range m.Tensors {
		if names[x.Name] {
			t.Fatalf("tensor %q twice", x.Name)
		}
		names[x.Name] = true
		if x.FileOffset < max(end, m.Files[0].HeaderBytes) || x.Bytes < 0 || x.Bytes > size-x.FileOffset {
			t.Fatalf("tensor %+v lies outside a file of %d bytes or before %d", x, size, end)
		}
		end = x.FileOffset + x.Bytes
		sum += x.Bytes
	}
	if sum != m.TotalBytes {
		t.Fatalf("tensors hold %d bytes, the model says %d", sum, m.TotalBytes)
	}
	checkLayout(t, m, m.Layout(weights.LayoutOptions{}), weights.LayoutOptions{Granularity: 4096, Align: 256, SegmentBytes: 1 << 30, ChunkBytes: 8 << 20})
}

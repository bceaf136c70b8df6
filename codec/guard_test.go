package codec

import (
	"errors"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	for name, c := range map[string]struct {
		b      []byte
		offset int // -1: sound
	}{
		"nil":                 {[]byte{0xc0}, -1},
		"fixmap":              {[]byte{0x81, 0xa1, 'a', 0x01}, -1},
		"map 16":              {[]byte{0xde, 0, 1, 0xd9, 1, 'a', 0xcc, 0xff}, -1},
		"map 32":              {[]byte{0xdf, 0, 0, 0, 1, 0xda, 0, 1, 'a', 0xcb, 0, 0, 0, 0, 0, 0, 0, 0}, -1},
		"array 16 of nothing": {[]byte{0xdc, 0, 0}, -1},
		"ext 8":               {[]byte{0xc7, 2, 9, 'a', 'b'}, -1},
		"fixext 16":           {append([]byte{0xd8, 1}, make([]byte, 16)...), -1},
		"as deep as allowed":  {append([]byte(strings.Repeat("\x91", MaxDepth)), 0x01), -1},

		"empty":                {nil, 0},
		"one deeper":           {append([]byte(strings.Repeat("\x91", MaxDepth+1)), 0x01), MaxDepth + 1},
		"number as a key":      {[]byte{0x81, 1, 1}, 1},
		"binary as a key":      {[]byte{0x81, 0xc4, 1, 'a', 1}, 1},
		"second key a number":  {[]byte{0x82, 0xa1, 'a', 1, 2, 3}, 4},
		"inner map's key":      {[]byte{0x91, 0x81, 0xc0, 1}, 2},
		"value follows":        {[]byte{0x80, 0x80}, 1},
		"string beyond end":    {[]byte{0xa5, 'a'}, 0},
		"array beyond end":     {[]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, 0},
		"map beyond end":       {[]byte{0x83, 0xa1, 'a', 1, 0xa0}, 0},
		"cut-off length":       {[]byte{0xdf, 0, 0}, 0},
		"cut-off number":       {[]byte{0xcf, 0, 0}, 0},
		"reserved":             {[]byte{0xc1}, 0},
		"item missing":         {[]byte{0x92, 0x92, 1, 2}, 4},
		"ext without its type": {[]byte{0xc7, 0}, 0},
	} {
		checkGuard(t, name, Guard(c.b), c.offset)
	}
}

func TestGuardJSON(t *testing.T) {
	for in, offset := range map[string]int{
		`{}`: -1, ` [1, 2.5e-3, "x", true, false, null, {"a": []}] `: -1, `"\ud83d\ude00\u00e9\/"`: -1, `-0`: -1,
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth): -1,

		``: 0, ` `: 1, `{`: 1, `[1,]`: 3, `{"a"}`: 4, `{"a":1,}`: 7, `{a:1}`: 1, `01`: 1, `1.`: 2, `.5`: 0, `+1`: 0, `1e`: 2, `tru`: 0, `nul`: 0,
		`"a`: 2, `"\x"`: 1, `"\u12"`: 1, `"\ud800"`: 1, `"\udc00"`: 1, `"\ud800\ud800"`: 1, "\"\xff\"": 1, "\"\x01\"": 1, `{} 1`: 3, `[}`: 1, `"\`: 2,
		strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1): MaxDepth, strings.Repeat(`{"a":`, MaxDepth+1): 5 * MaxDepth,
	} {
		checkGuard(t, in, GuardJSON([]byte(in)), offset)
	}
}

func checkGuard(t *testing.T, name string, err error, offset int) {
	t.Helper()
	if offset < 0 {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || syntax.Offset != offset || syntax.Reason == "" {
		t.Errorf("%s: %v, want byte %d", name, err, offset)
	}
}

func TestIntegersBeyondInt64AreRefused(t *testing.T) {
	var n int64
	for _, in := range []string{`9223372036854775808`, `-9223372036854775809`, `18446744073709551616`, `1e3`, `1.0`} {
		if err := Unmarshal([]byte(in), JSON, &n); err == nil {
			t.Errorf("%s is %d", in, n)
		}
	}
	for _, in := range [][]byte{{0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0}, {0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0xca, 0, 0, 0, 0}} {
		if err := Unmarshal(in, MsgPack, &n); err == nil {
			t.Errorf("%x is %d", in, n)
		}
	}
}

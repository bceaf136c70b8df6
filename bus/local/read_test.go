package local

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/conn"
)

func TestFrames(t *testing.T) {
	text := "INFO {\"a\":1}\r\nPING\r\nMSG a.b 7 5\r\nhe\r\no\r\nMSG a 12 _INBOX.x  0\r\n\r\nHMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n+OK\r\n-ERR 'x y'\r\nPONG\r\n"
	want := []string{`0 args={"a":1}`, "2", `1 a.b 7 reply= head="" data="he\r\no"`, `1 a 12 reply=_INBOX.x head="" data=""`,
		`1 a 1 reply=r head="NATS/1.0\r\n\r\n" data="hi"`, "4", "5 args='x y'", "3"}
	for name, src := range map[string]io.Reader{"whole": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
		t.Run(name, func(t *testing.T) {
			r := newReader(src, func() {})
			for _, w := range want {
				f, err := r.next()
				if err != nil {
					t.Fatal(err)
				}
				if got := show(f); got != w {
					t.Errorf("got  %s\nwant %s", got, w)
				}
			}
			if _, err := r.next(); !errors.Is(err, io.EOF) {
				t.Errorf("%v", err)
			}
		})
	}
}

func show(f frame) string {
	switch {
	case f.op == opMsg:
		return fmt.Sprintf("%d %s %d reply=%s head=%q data=%q", f.op, f.subject, f.sub, f.reply, f.header, f.data)
	case len(f.args) > 0:
		return fmt.Sprintf("%d args=%s", f.op, f.args)
	}
	return fmt.Sprint(f.op)
}

func TestBrokenFrames(t *testing.T) {
	for _, text := range []string{"MSG a 7\r\n", "MSG a 7 r x 5\r\nhello\r\n", "MSG a x 5\r\nhello\r\n", "MSG a 1 -5\r\n", "MSG a 1 99999999999\r\n",
		"MSG a 1 5\r\nhello!\r\n", "HMSG a 1 9 5\r\nhello\r\n", "HMSG a 5\r\nhello\r\n", "NOPE\r\n", "\r\n", "MSG a 1 999999999\r\n",
		strings.Repeat("x", maxLine+2)} {
		r := newReader(strings.NewReader(text), func() {})
		if f, err := r.next(); err == nil {
			t.Errorf("%.40q is taken for %s", text, show(f))
		}
	}
}

// FuzzFrames: whatever the bytes and however they are cut, the reader ends with the same
// frames, and holds no more than one frame's memory.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("INFO {}\r\nMSG a.b 7 r 5\r\nhello\r\nHMSG a 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"))
	f.Add([]byte("MSG a 1 8000000\r\nx"))
	f.Add([]byte("-ERR 'Permissions Violation for Publish to \"a\"'\r\nPING\r\nPONG\r\n+OK\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(src io.Reader) (all []string) {
			r := newReader(src, func() {})
			for {
				f, err := r.next()
				if err != nil {
					return all
				}
				all = append(all, show(f))
				if len(r.buf) > maxFrame+2*maxLine {
					t.Fatalf("a buffer of %d bytes", len(r.buf))
				}
			}
		}
		one, many := read(strings.NewReader(string(b))), read(iotest.OneByteReader(strings.NewReader(string(b))))
		if strings.Join(one, "\n") != strings.Join(many, "\n") {
			t.Errorf("%q\n%q", one, many)
		}
	})
}

func TestFailuresHaveTypes(t *testing.T) {
	e := failure(`'Permissions Violation for Publish to "memory.events.x"'`)
	if e.Kind != conn.PublishDenied || e.Subject != "memory.events.x" || !errors.Is(e, nats.ErrPermissionViolation) {
		t.Errorf("%+v", e)
	}
	if e := failure("'Stale Connection'"); e.Kind != conn.Failed || e.Err == nil {
		t.Errorf("%+v", e)
	}
}

package conn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A peer that reads nothing does not stop a writer; beyond the bound the
// connection is given up.
func TestWritesNeverWait(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the peer that it holds is never accepted, and never reads
	a, err := asyncDialer{&net.Dialer{}, true}.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	for i := 0; err == nil; i++ {
		if i > 4*asyncConnBacklog/len(chunk) { // as much again may be on its way out, and the kernel keeps some
			t.Fatal("the backlog is not bounded")
		}
		_, err = a.Write(chunk)
	}
	if !errors.Is(err, errBacklog) {
		t.Errorf("%v", err)
	}
	if _, err := a.Write([]byte("more")); !errors.Is(err, errBacklog) {
		t.Errorf("%v", err)
	}
	_ = a.Close() // it was closed when it was given up
}

func TestEverythingArrivesInOrderBeforeTheEnd(t *testing.T) {
	ours, theirs := net.Pipe()
	a := newAsyncConn(ours, true)
	got := make(chan string)
	go func() {
		b, _ := io.ReadAll(theirs) // the end of the pipe is no error
		got <- string(b)
	}()
	var want string
	for i := range 1000 {
		s := fmt.Sprint(i, " ")
		want += s
		if _, err := a.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != want {
		t.Errorf("%d of %d bytes", len(s), len(want))
	}
	if _, err := a.Write([]byte("late")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestAFailedWriteIsTold(t *testing.T) {
	ours, theirs := net.Pipe()
	a := newAsyncConn(ours, true)
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	<-a.done
	if _, err := a.Write([]byte("y")); err == nil {
		t.Error("a write to a broken connection succeeded")
	}
	_ = a.Close() // it is broken
}

func TestClassify(t *testing.T) {
	denied := func(s string) error { return fmt.Errorf("%w: %s", nats.ErrPermissionViolation, s) }
	for _, c := range []struct {
		err     error
		sub     *nats.Subscription
		kind    Kind
		subject string
	}{
		{denied(`Permissions Violation for Publish to "memory.allocate"`), nil, PublishDenied, "memory.allocate"},
		{denied(`Permissions Violation for Publish with Reply of "_INBOX.x.1"`), nil, ReplyDenied, "_INBOX.x.1"},
		{denied(`Permissions Violation for Subscription to "memory.>" using queue "q"`), nil, SubscribeDenied, "memory.>"},
		{nats.ErrSlowConsumer, &nats.Subscription{Subject: "memory.renew"}, ConsumerTooSlow, "memory.renew"},
		{errors.New("other"), nil, Failed, ""},
	} {
		if e := Classify(subjectOf(c.sub), c.err); e.Kind != c.kind || e.Subject != c.subject || !errors.Is(e, c.err) {
			t.Errorf("%v: %+v", c.err, e)
		}
	}
	for k := range kindEnd {
		if k.String() == "" {
			t.Errorf("kind %d has no name", k)
		}
	}
}

func TestDialSaysWhatToDo(t *testing.T) {
	start := time.Now()
	_, err := Dial(Config{URL: "nats://127.0.0.1:1"})
	var e *ConnectError
	if !errors.As(err, &e) || e.Fix == "" || e.Target != "nats://127.0.0.1:1" || time.Since(start) > 2*connTimeout {
		t.Errorf("%v", err)
	}
}

// What cannot be used is told without what is secret in it.
func TestDialTellsNoSecret(t *testing.T) {
	seed := filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(seed, []byte("SUNOTASEEDATALL"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Config{{URL: "nats://ada:hunter2@127.0.0.1:1,127.0.0.1:1"}, {URL: "nats://hunter2@127.0.0.1:1", NKeyFile: seed}, {URL: "127.0.0.1:1", NKeyFile: seed + "2"}} {
		_, err := Dial(c)
		var e *ConnectError
		if !errors.As(err, &e) || e.Fix == "" || !strings.Contains(e.Target, "127.0.0.1:1") {
			t.Fatalf("%v", err)
		}
		if s := err.Error(); strings.Contains(s, "hunter2") || strings.Contains(s, "NOTASEED") {
			t.Errorf("a secret is in %q", s)
		}
	}
}

// A server that refuses our certificate may be gone before its word for that is read.
func TestAServerThatGoesAfterTheHandshake(t *testing.T) {
	for _, err := range []error{io.EOF, &net.OpError{Op: "read", Err: net.ErrClosed}, &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)},
		&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}} {
		if got := connectFix(err, true); got != tlsFix {
			t.Errorf("with TLS, %v: %s", err, got)
		}
		if e := (&ConnectError{Err: err, Fix: connectFix(err, false)}); !e.NoServer() {
			t.Errorf("%v, without TLS: %v", err, e)
		}
		if got := connectFix(err, false); got == tlsFix {
			t.Errorf("without, %v: %s", err, got)
		}
	}
}

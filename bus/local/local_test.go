package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/conn"
	"github.com/isobar-project/isobar/bus/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 5 * time.Second

func start(t testing.TB, c bus.ServerConfig) *bus.Server {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	s, err := bus.StartServer(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func dial(t testing.TB, s local.Provider, change func(*local.Config)) *local.Client {
	t.Helper()
	c := local.Config{Server: s, Name: "test"}
	if change != nil {
		change(&c)
	}
	l, err := local.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func plain(t testing.TB, s *bus.Server) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func next[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// A responder of ours answers a plain client: payloads of every size up to the limit, with
// header and without, many at once.
func TestRequestsAreAnswered(t *testing.T) {
	s := start(t, bus.ServerConfig{})
	l := dial(t, s, nil)
	if _, err := l.Subscribe("echo.*", "q", func(m *nats.Msg) {
		if err := l.Publish(m.Reply, "", m.Header, m.Data); err != nil {
			t.Errorf("%v", err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(patience); err != nil {
		t.Fatal(err)
	}
	nc := plain(t, s)
	sizes := []int{0, 1, 100, 4095, 4096, 32<<10 - 1, 32 << 10, 100_000, 300_000}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 100 {
				m := nats.NewMsg("echo.x")
				m.Data = bytes.Repeat([]byte{byte('a' + w), '\r', '\n'}, sizes[(i+w)%len(sizes)]/3)
				if i%3 == 0 {
					m.Header.Set("Accept", fmt.Sprint(w, " ", i))
				}
				r, err := nc.RequestMsg(m, patience)
				if err != nil {
					t.Errorf("%d bytes: %v", len(m.Data), err)
					return
				}
				if !bytes.Equal(r.Data, m.Data) || r.Header.Get("Accept") != m.Header.Get("Accept") {
					t.Errorf("%d bytes came back as %d, header %v", len(m.Data), len(r.Data), r.Header)
				}
			}
		})
	}
	wg.Wait()
}

// What one goroutine publishes arrives in order, whoever else publishes.
func TestPublishesKeepTheirOrder(t *testing.T) {
	s := start(t, bus.ServerConfig{})
	l := dial(t, s, nil)
	nc := plain(t, s)
	sub, err := nc.SubscribeSync("order.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 2000
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := l.Publish(fmt.Sprint("order.", w), "", nil, []byte(fmt.Sprint(i))); err != nil {
					t.Errorf("%v", err)
				}
			}
		})
	}
	var last [writers]int
	for range writers * each {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		var w, i int
		fmt.Sscanf(m.Subject, "order.%d", &w)
		fmt.Sscan(string(m.Data), &i)
		if i != last[w] {
			t.Fatalf("writer %d: %d after %d", w, i, last[w]-1)
		}
		last[w]++
	}
	wg.Wait()
}

// Answers that handlers gave while more messages were at hand do not stay behind when the
// reader waits again, even where the last message has no answer.
func TestNothingStaysBehind(t *testing.T) {
	s := start(t, bus.ServerConfig{})
	l := dial(t, s, nil)
	release := make(chan struct{})
	if _, err := l.Subscribe("work", "", func(m *nats.Msg) {
		<-release
		if m.Reply != "" {
			if err := l.Publish(m.Reply, "", nil, nil); err != nil {
				t.Errorf("%v", err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(patience); err != nil {
		t.Fatal(err)
	}
	nc := plain(t, s)
	got, err := nc.SubscribeSync("answers")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		m := &nats.Msg{Subject: "work", Reply: "answers"}
		if i == 19 {
			m.Reply = ""
		}
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	close(release)
	for range 19 {
		if _, err := got.NextMsg(patience); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnsubscribe(t *testing.T) {
	s := start(t, bus.ServerConfig{})
	l := dial(t, s, nil)
	got := make(chan string, 16)
	end, err := l.Subscribe("a", "", func(m *nats.Msg) { got <- string(m.Data) })
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Publish("a", "", nil, []byte("1")); err != nil {
		t.Fatal(err)
	}
	if x := next(t, got); x != "1" {
		t.Fatal(x)
	}
	end()
	end() // harmless
	if err := l.Publish("a", "", nil, []byte("2")); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(patience); err != nil {
		t.Fatal(err)
	}
	if len(got) != 0 {
		t.Errorf("after the end came %q", <-got)
	}
}

func TestPublishRefuses(t *testing.T) {
	s := start(t, bus.ServerConfig{})
	l := dial(t, s, nil)
	for _, c := range []struct {
		subject, reply string
		bytes          int
		want           error
	}{
		{"", "", 0, nats.ErrBadSubject},
		{"a b", "", 0, nats.ErrBadSubject},
		{"a\r\nPUB b 0", "", 0, nats.ErrBadSubject},
		{"a", "x y", 0, nats.ErrBadSubject},
		{"a", "", 1 << 20, nats.ErrMaxPayload},
		{"a", "b", 1, nil},
	} {
		if err := l.Publish(c.subject, c.reply, nil, make([]byte, c.bytes)); !errors.Is(err, c.want) {
			t.Errorf("%q %q %d: %v, want %v", c.subject, c.reply, c.bytes, err, c.want)
		}
	}
	// A line break in a header ends nothing.
	nc := plain(t, s)
	sub, err := nc.SubscribeSync("h")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := l.Publish("h", "", nats.Header{"A": {"x\r\nB: y\r\n\r\n"}}, []byte("z")); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(patience)
	if err != nil || m.Header.Get("A") != "xB: y" || m.Header.Get("B") != "" || string(m.Data) != "z" {
		t.Errorf("%v %v", m, err)
	}
	l.Close()
	if err := l.Publish("a", "", nil, nil); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := l.Subscribe("a", "", func(*nats.Msg) {}); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	s := start(t, bus.ServerConfig{Username: "u", Password: "p"})
	_, err := local.Dial(local.Config{Server: s, Username: "u", Password: "wrong"})
	var refused *conn.ConnectError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "Authorization Violation") {
		t.Errorf("%v", err)
	}
	dial(t, s, func(c *local.Config) { c.Username, c.Password = "u", "p" })
}

// wires counts the connections of a server and can cut them.
type wires struct {
	s    *bus.Server
	mu   sync.Mutex
	made []net.Conn
}

func (w *wires) InProcessConn() (net.Conn, error) {
	c, err := w.s.InProcessConn()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made = append(w.made, c)
	return c, err
}

func (w *wires) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made[len(w.made)-1].Close()
}

// A connection that broke is made anew with its subscriptions, and says so.
func TestReconnects(t *testing.T) {
	w := &wires{s: start(t, bus.ServerConfig{})}
	events := make(chan conn.Event, 16)
	l := dial(t, w, func(c *local.Config) { c.Notify = func(e conn.Event) { events <- e } })
	got := make(chan string, 16)
	if _, err := l.Subscribe("a", "", func(m *nats.Msg) { got <- string(m.Data) }); err != nil {
		t.Fatal(err)
	}
	changes, stop := l.Watch()
	defer stop()
	for i := range 3 {
		w.cut()
		if e := next(t, events); e.Kind != conn.Lost {
			t.Fatalf("%v", e)
		}
		if e := next(t, events); e.Kind != conn.Restored {
			t.Fatalf("%v", e)
		}
		if x := next(t, changes); x != nats.CONNECTED {
			t.Fatalf("%v", x)
		}
		if err := l.Flush(patience); err != nil {
			t.Fatal(err)
		}
		if err := l.Publish("a", "", nil, []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if x := next(t, got); x != fmt.Sprint(i) {
			t.Fatal(x)
		}
	}
	l.Close()
	if !l.Closed() || l.Connected() {
		t.Error("open after Close")
	}
	if x := next(t, changes); x != nats.CLOSED {
		t.Fatalf("%v", x)
	}
	if e := next(t, events); e.Kind != conn.Closed {
		t.Fatalf("%v", e)
	}
}

package local

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/isobar-project/isobar/bus/conn"
)

const (
	startBuffer = 32 << 10
	// maxFrame bounds one protocol line and its payload; the server's own limit is lower.
	maxFrame = 8 << 20
	// maxLine bounds a protocol line; the longest is the server's INFO.
	maxLine = 64 << 10
)

type op uint8

const (
	opInfo op = iota
	opMsg
	opPing
	opPong
	opOK
	opErr
)

// frame is one message of the server. Its slices are valid until the next.
type frame struct {
	op op
	// args is what follows the name of an opInfo or opErr.
	args []byte
	// Of an opMsg:
	subject, reply []byte
	sub            int
	header, data   []byte
}

// reader splits the server's bytes into frames.
type reader struct {
	src  io.Reader
	idle func() // called before each read, which may wait
	buf  []byte
	r, w int
}

func newReader(src io.Reader, idle func()) *reader {
	return &reader{src: src, idle: idle, buf: make([]byte, startBuffer)}
}

// more tells whether bytes of another frame are at hand.
func (r *reader) more() bool { return r.r < r.w }

// fill reads once more; whole says how long the frame at r is, if that is known.
func (r *reader) fill(whole int) error {
	if r.r > 0 && (r.r == r.w || len(r.buf)-r.r < max(whole, len(r.buf)/2)) {
		copy(r.buf, r.buf[r.r:r.w])
		r.r, r.w = 0, r.w-r.r
	}
	if r.w == len(r.buf) || whole > len(r.buf) {
		bigger := make([]byte, max(2*len(r.buf), whole))
		copy(bigger, r.buf[r.r:r.w])
		r.buf, r.r, r.w = bigger, 0, r.w-r.r
	}
	r.idle()
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// next returns the next frame, reading where needed.
func (r *reader) next() (frame, error) {
	if r.r == r.w && len(r.buf) > keptBuffer {
		r.buf, r.r, r.w = make([]byte, startBuffer), 0, 0
	}
	seen := 0
	for {
		at := bytes.IndexByte(r.buf[r.r+seen:r.w], '\n')
		if at >= 0 {
			return r.take(r.buf[r.r:r.r+seen+at], seen+at+1)
		}
		if seen = r.w - r.r; seen > maxLine {
			return frame{}, errors.New("local: a protocol line without end")
		}
		if err := r.fill(0); err != nil {
			return frame{}, err
		}
	}
}

// take makes a frame of a line, which with its end is n bytes long.
func (r *reader) take(line []byte, n int) (frame, error) {
	line = bytes.TrimSuffix(line, []byte{'\r'})
	name, args, _ := bytes.Cut(line, []byte{' '})
	f := frame{args: args}
	switch string(name) {
	case "MSG", "HMSG":
		return r.message(len(name) == 4, args, n)
	case "PING":
		f.op = opPing
	case "PONG":
		f.op = opPong
	case "+OK":
		f.op = opOK
	case "-ERR":
		f.op = opErr
	case "INFO":
		f.op = opInfo
	default:
		return f, fmt.Errorf("local: the server said %.40q", line)
	}
	r.r += n
	return f, nil
}

// message reads MSG subject sub [reply] bytes, or HMSG with the header's bytes before.
func (r *reader) message(headed bool, args []byte, n int) (frame, error) {
	var words [5][]byte
	count := 0
	for len(args) > 0 && count < len(words) {
		var word []byte
		word, args, _ = bytes.Cut(args, []byte{' '})
		if len(word) > 0 {
			words[count] = word
			count++
		}
	}
	tail := 1 // numbers at the end
	if headed {
		tail = 2
	}
	hasReply := count == 3+tail
	if len(args) > 0 || count != 2+tail && !hasReply {
		return frame{}, errors.New("local: a message with a wrong number of words")
	}
	total, ok1 := number(words[count-1])
	head, ok2 := 0, true
	if headed {
		head, ok2 = number(words[count-2])
	}
	sub, ok3 := number(words[1])
	if !ok1 || !ok2 || !ok3 || head > total || total > maxFrame {
		return frame{}, errors.New("local: a message with wrong numbers")
	}
	// The words point into the buffer, which may move: they are found again by their place.
	at := func(w []byte) int { return cap(r.buf) - cap(w) - r.r }
	subject, reply := at(words[0]), 0
	if hasReply {
		reply = at(words[2])
	}
	whole := n + total + 2
	for r.w-r.r < whole {
		if err := r.fill(whole); err != nil {
			return frame{}, err
		}
	}
	b := r.buf[r.r : r.r+whole]
	f := frame{op: opMsg, sub: sub, subject: b[subject : subject+len(words[0])], header: b[n : n+head], data: b[n+head : n+total]}
	if hasReply {
		f.reply = b[reply : reply+len(words[2])]
	}
	if b[whole-2] != '\r' || b[whole-1] != '\n' {
		return frame{}, errors.New("local: a message longer than it says")
	}
	r.r += whole
	return f, nil
}

func number(b []byte) (n int, ok bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}

// read serves one connection after the other until Close.
func (l *Client) read(r *reader) {
	defer l.wg.Done()
	for {
		err := l.serve(r)
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return
		}
		l.wire.Close()
		l.wire, l.pending, l.pongs, l.idle = nil, nil, nil, false
		l.mu.Unlock()
		l.notify(conn.Event{Kind: conn.Lost, Err: err})
		if r = l.reconnect(); r == nil {
			return
		}
		l.notify(conn.Event{Kind: conn.Restored})
	}
}

// reconnect returns nil once the client is closed.
func (l *Client) reconnect() *reader {
	for {
		if r, err := l.connect(); err == nil {
			return r
		}
		again := make(chan struct{})
		t := l.cfg.Clock.AfterFunc(reconnectPause, func() { close(again) })
		select {
		case <-again:
		case <-l.done:
			t.Stop()
			return nil
		}
	}
}

// serve handles frames until the connection fails.
func (l *Client) serve(r *reader) error {
	var m nats.Msg // each handler's in turn, as it is theirs only until they return
	for {
		f, err := r.next()
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.idle = !r.more()
		var s *subscription
		switch f.op {
		case opMsg:
			s = l.subs[f.sub]
		case opPing:
			l.pending = append(l.pending, "PONG\r\n"...)
		case opPong:
			if len(l.pongs) > 0 {
				close(l.pongs[0])
				l.pongs = l.pongs[1:]
			}
		}
		l.mu.Unlock()
		switch {
		case s != nil:
			l.handle(s, &f, &m)
		case f.op == opErr:
			l.notify(failure(string(f.args)))
		}
	}
}

// Idle tells a handler whether nothing more is at hand for its goroutine: it may then do
// itself what it would else hand to another. For handlers only.
func (l *Client) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.idle
}

// rest notes that the reader is in no handler, and lets go what it left: a PONG, or what a
// handler published that had more messages behind it.
func (l *Client) rest() {
	l.mu.Lock()
	l.idle = false
	l.drain()
	l.mu.Unlock()
}

// handle runs a subscription's handler with a frame, as the message m.
func (l *Client) handle(s *subscription, f *frame, m *nats.Msg) {
	*m = nats.Msg{Subject: s.subject, Reply: string(f.reply), Data: f.data}
	if string(f.subject) != s.subject {
		m.Subject = string(f.subject)
	}
	if len(f.header) > 0 {
		h, err := nats.DecodeHeadersMsg(f.header)
		if err != nil {
			return // the server does not pass on what is no header
		}
		m.Header = h
	}
	s.handle(m)
}

func (l *Client) notify(e conn.Event) {
	if l.cfg.Log != nil {
		e.LogTo(l.cfg.Log, l.cfg.Name)
	}
	if l.cfg.Notify != nil {
		l.cfg.Notify(e)
	}
}

// failure gives the server's -ERR a type.
func failure(text string) conn.Event {
	text = strings.Trim(text, "' \r")
	err := fmt.Errorf("nats: %s", text)
	if strings.HasPrefix(strings.ToLower(text), "permissions violation") {
		err = fmt.Errorf("%w: %s", nats.ErrPermissionViolation, text)
	}
	return conn.Classify("", err)
}

package local

import (
	"errors"
	"runtime"
	"strconv"

	"github.com/nats-io/nats.go"
)

var errBacklog = errors.New("local: the server has not taken 16 MiB of what was sent to it")

// Publish sends one message. An answer to the only message at hand is written by the caller;
// of many the answers gather, and go together from the client's own goroutine. reply and header may be empty. Errors: nats.ErrBadSubject, nats.ErrMaxPayload,
// ErrDisconnected, nats.ErrConnectionClosed; then nothing was sent.
func (l *Client) Publish(subject, reply string, header nats.Header, payload []byte) error {
	if subject == "" || !plainToken(subject) || !plainToken(reply) {
		return nats.ErrBadSubject
	}
	var text []byte
	if len(header) > 0 {
		text = appendHeader(nil, header)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nats.ErrConnectionClosed
	case l.wire == nil:
		return ErrDisconnected
	case len(text)+len(payload) > l.maxPayload:
		return nats.ErrMaxPayload
	case len(l.pending) > backlog:
		return errBacklog
	}
	b := l.pending
	if text == nil {
		b = append(b, "PUB "...)
	} else {
		b = append(b, "HPUB "...)
	}
	b = append(append(b, subject...), ' ')
	if reply != "" {
		b = append(append(b, reply...), ' ')
	}
	if text != nil {
		b = append(strconv.AppendInt(b, int64(len(text)), 10), ' ')
	}
	b = append(strconv.AppendInt(b, int64(len(text)+len(payload)), 10), "\r\n"...)
	l.pending = append(append(append(b, text...), payload...), "\r\n"...)
	if l.idle || l.cfg.Urgent {
		l.drain()
	} else {
		l.kick()
	}
	return nil
}

// drain writes what is pending, and what others add meanwhile, unless somebody is at it.
// The lock is held, and let go of during each write.
func (l *Client) drain() {
	if l.writing {
		return
	}
	l.writing = true
	for round := 0; len(l.pending) > 0 && l.wire != nil; round++ {
		if round == writeRounds {
			l.kick()
			break
		}
		out, wire := l.pending, l.wire
		l.pending = l.spare[:0]
		l.mu.Unlock()
		_, err := wire.Write(out)
		l.mu.Lock()
		if cap(out) > keptBuffer {
			out = nil
		}
		l.spare = out
		if err != nil {
			_ = wire.Close() // the reader learns of it, and makes a new one
			break
		}
	}
	l.writing = false
}

// writeRest writes what callers of Publish left to it.
//
// Whoever else is ready to run may add to it first: under load this makes one write of many
// answers; an idle process returns from Gosched at once.
func (l *Client) writeRest() {
	defer l.wg.Done()
	for {
		select {
		case <-l.pump:
		case <-l.done:
			return
		}
		runtime.Gosched()
		l.mu.Lock()
		l.drain()
		l.mu.Unlock()
	}
}

// appendHeader writes a header block. Names and values are one line each.
func appendHeader(b []byte, h nats.Header) []byte {
	b = append(b, "NATS/1.0\r\n"...)
	for name, values := range h {
		for _, v := range values {
			b = append(appendLine(b, name), ": "...)
			b = append(appendLine(b, v), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

func appendLine(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c != '\r' && c != '\n' {
			b = append(b, c)
		}
	}
	return b
}

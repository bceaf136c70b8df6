package node_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/node"
)

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
	on chan struct{}
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		select {
		case l.on <- struct{}{}:
		default:
		}
	}()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestRecordsOfCommandsAreGathered(t *testing.T) {
	w := &lockedBuffer{on: make(chan struct{}, 1)}
	c := node.Config{LogLevel: slog.LevelInfo}
	log := c.Logger(w)
	log.Info("command", "action", "a")
	log.Info("command", "action", "b")
	log.Info("started")
	if got := strings.Count(w.String(), "\n"); got != 3 {
		t.Fatalf("%d lines after a record that matters, want all 3", got)
	}
	<-w.on
	log.Info("command", "action", "c")
	select {
	case <-w.on: // written by itself in the end
	case <-time.NewTimer(10 * time.Second).C:
		t.Fatal("a record stays in the buffer")
	}
	if !strings.HasSuffix(w.String(), "action=c\n") {
		t.Fatalf("log is %q", w.String())
	}
}

package main

import (
	"strings"
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

func TestTopOnce(t *testing.T) {
	b := startNode(t, replies(house()))
	f := newFixture()
	if code := f.run(t, "top", "--once", "--url", b.URL()); code != exitDone {
		t.Fatal(f.err)
	}
	golden(t, "top.txt", f.out.String())
	// Without a terminal it is the same.
	again := newFixture()
	if code := again.run(t, "top", "--url", b.URL()); code != exitDone || again.out.String() != f.out.String() {
		t.Errorf("exit code %d: %s", code, again.out)
	}
	if code := newFixture().run(t, "top", "--interval", "1ms", "--url", b.URL()); code != exitUsage {
		t.Errorf("an interval of 1ms: exit code %d", code)
	}
}

func TestTopLive(t *testing.T) {
	b := startNode(t, replies(house()))
	f := newFixture()
	restored := false
	f.outTerminal, f.in = 100, strings.NewReader("xq")
	f.raw = func() (func(), error) { return func() { restored = true }, nil }
	f.screen = func() (int, int) { return 60, 8 }
	if code := f.run(t, "top", "--url", b.URL()); code != exitDone {
		t.Fatal(f.err)
	}
	text := f.out.String()
	if !restored || !strings.HasPrefix(text, "\x1b[?1049h") || !strings.HasSuffix(text, "\x1b[?1049l") || !strings.Contains(text, "gpu-0") {
		t.Errorf("restored %v: %q", restored, text)
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		if n := len(strings.TrimSuffix(line, "\x1b[K")); n > 60+len("\x1b[?1049h\x1b[?25l\x1b[H") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func TestBars(t *testing.T) {
	m := &schemas.MemoryInfo{TotalMemory: 100, UsedMemory: 80, ModelMemory: 30, ReservedMemory: 10, ForeignMemory: 10, PooledMemory: 10}
	if got := bytesBar(m, 10); got != "[###mmmrx~.]" {
		t.Errorf("%s", got)
	}
	for _, m := range []*schemas.MemoryInfo{{}, {TotalMemory: 10, UsedMemory: 30, ForeignMemory: 30}, {TotalMemory: 10, UsedMemory: -5}} {
		if got := bytesBar(m, 10); len(got) != 12 {
			t.Errorf("%s", got)
		}
	}
}

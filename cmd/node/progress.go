package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// bar shows how an operation goes: on a terminal one line that is written over, else
// one line for each state that it comes to.
type bar struct {
	w     io.Writer
	width int // of the terminal, 0 for none
	drawn bool
	last  string
}

// update shows the operation as it is now.
func (b *bar) update(op schemas.Operation) {
	if b.width == 0 {
		if text := stateText(op); text != b.last && (op.Status == schemas.StatusQueued || op.Status == schemas.StatusRunning) {
			fmt.Fprintln(b.w, "isobar: "+text)
			b.last = text
		}
		return
	}
	text := b.line(op)
	if utf8.RuneCountInString(text) >= b.width {
		text = string([]rune(text)[:b.width-1])
	}
	fmt.Fprint(b.w, "\r\x1b[K"+text)
	b.drawn = true
}

// clear takes the line away, so that what comes next begins on a clean one.
func (b *bar) clear() {
	if b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.drawn = false
	}
}

// stateText says in words where an operation is, without figures that change all the time.
func stateText(op schemas.Operation) string {
	s := fmt.Sprintf("%s is %s", op.Action, op.Status)
	if op.Action == "" {
		s = "the command is " + string(op.Status)
	}
	if op.Status == schemas.StatusQueued && op.Position > 0 {
		s += fmt.Sprintf(" at position %d", op.Position)
	}
	s += " as operation " + op.OperationID
	if op.Reason != "" {
		s += ": " + op.Reason
	}
	return s
}

func (b *bar) line(op schemas.Operation) string {
	if op.BytesTotal <= 0 {
		s := stateText(op)
		if op.EstimatedMs > 0 {
			s = fmt.Sprintf("about %s: %s", shortDuration(milliseconds(op.EstimatedMs)), s)
		}
		return s
	}
	share := min(1, max(0, float64(op.BytesDone)/float64(op.BytesTotal)))
	tail := fmt.Sprintf(" %3.0f %%  %s of %s", share*100, node.HumanSize(op.BytesDone), node.HumanSize(op.BytesTotal))
	if op.ThroughputBytesPerSecond > 0 {
		tail += fmt.Sprintf("  %s/s", node.HumanSize(int64(op.ThroughputBytesPerSecond)))
		left := float64(op.BytesTotal-op.BytesDone) / op.ThroughputBytesPerSecond
		if left > 0 {
			tail += "  " + shortDuration(time.Duration(left*float64(time.Second))) + " left"
		}
	}
	cells := min(40, b.width-utf8.RuneCountInString(tail)-4)
	if cells < 5 {
		return strings.TrimSpace(tail)
	}
	full := int(share * float64(cells))
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", cells-full) + "]" + tail
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// shortDuration is a duration with one unit, two from a minute on.
func shortDuration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + shortDuration(-d)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/float64(time.Microsecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

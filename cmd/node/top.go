package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// topCommand is a live view of a node.
type topCommand struct {
	Once     bool          `name:"once" help:"Print the view once, as it also is where the output is no terminal."`
	Interval time.Duration `name:"interval" default:"1s" placeholder:"DURATION" help:"The time between two looks."`
	connection
}

// Help is the long help.
func (topCommand) Help() string {
	return `Shows devices, pressure, queue, models and the last events, anew every second. q or Ctrl-C ends it.

    isobar top
    isobar top --interval 250ms
    isobar top --once`
}

// topModels is how many models are shown, topEvents how many events are kept.
const (
	topModels = 12
	topEvents = 64
)

// Run implements the command.
func (c *topCommand) Run(k *call) error {
	if c.Interval < 50*time.Millisecond || c.Interval > time.Hour {
		return usage("--interval: %s is not from 50ms to 1h", c.Interval)
	}
	conn, err := c.open(k, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := k.interruptible()
	defer stop()
	if c.Once || k.outTerminal == 0 {
		st, err := readStatus(ctx, conn, c.Node, topModels)
		if err != nil {
			return err
		}
		width := k.outTerminal
		if width == 0 {
			width = widestTable
		}
		_, err = io.WriteString(k.out, topView(st, k.now(), width, nil))
		return err
	}
	return c.live(ctx, k, conn)
}

// live draws until q, an interrupt or the node's end.
func (c *topCommand) live(ctx context.Context, k *call, conn *client.Client) error {
	restore, err := k.raw()
	if err != nil {
		return fmt.Errorf("the terminal cannot be read key by key: %w", err)
	}
	defer restore()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := conn.Events(ctx)
	if err != nil {
		return err
	}
	defer events.Close()
	lines, quit := make(chan string, topEvents), make(chan struct{})
	go follow(ctx, events, lines)
	go untilQ(k.in, quit)
	// The other screen, without a cursor; both are given back at the end.
	fmt.Fprint(k.out, "\x1b[?1049h\x1b[?25l")
	defer fmt.Fprint(k.out, "\x1b[?25h\x1b[?1049l")
	var last []string
	for {
		st, err := readStatus(ctx, conn, c.Node, topModels)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		width, height := k.screen()
		fmt.Fprint(k.out, frame(topView(st, k.now(), width, last), width, height))
		tick := make(chan struct{})
		timer := clock.Real().AfterFunc(c.Interval, func() { close(tick) })
		for waiting := true; waiting; {
			select {
			case line := <-lines:
				if last = append(last, line); len(last) > topEvents {
					last = last[1:]
				}
			case <-tick:
				waiting = false
			case <-quit:
				timer.Stop()
				return nil
			case <-ctx.Done():
				timer.Stop()
				return nil
			}
		}
	}
}

// follow turns events into lines; what nobody takes is left out.
func follow(ctx context.Context, events *client.Events, lines chan<- string) {
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return
		}
		for line := range strings.Lines(eventLines(e)) {
			select {
			case lines <- strings.TrimSuffix(line, "\n"):
			default:
			}
		}
	}
}

// untilQ reads keys and closes quit at the first q, or Ctrl-C, which is a key here too.
func untilQ(in io.Reader, quit chan<- struct{}) {
	var key [1]byte
	for {
		_, err := in.Read(key[:])
		if key[0] == 'q' || key[0] == 'Q' || key[0] == 3 {
			close(quit)
			return
		}
		if errors.Is(err, io.EOF) || err != nil {
			return // nobody types: interrupts still end it
		}
	}
}

// topView is everything that is shown, the newest events last.
func topView(st *nodeStatus, now time.Time, width int, events []string) string {
	var b strings.Builder
	waiting := len(st.Queue.Waiting)
	fmt.Fprintf(&b, "isobar top  node %s  %s  %s waiting  %s\n\n", st.Node, now.UTC().Format("15:04:05"), plural(waiting, "request"), plural(len(st.Status.Warnings), "warning"))
	for i := range st.Status.Devices {
		m := &st.Status.Devices[i].MemoryInfo
		fmt.Fprintf(&b, "  %-10s %s %5.1f %%  %s of %s  %s\n", m.DeviceID, bytesBar(m, max(10, width-64)), m.UsagePercentage, node.HumanSize(m.UsedMemory),
			node.HumanSize(m.TotalMemory), st.level(m.DeviceID))
	}
	b.WriteString("  # granted  m models  r reserved  x others  ~ warm  . free\n")
	st.writePressure(&b)
	st.writeQueue(&b, now)
	st.writeModels(&b, now)
	st.writeWarnings(&b, now)
	if len(events) > 0 {
		b.WriteString("\nEVENTS\n")
		for i := len(events) - 1; i >= 0; i-- {
			b.WriteString("  " + events[i] + "\n")
		}
	}
	return b.String()
}

// bytesBar shows a device's bytes by kind.
func bytesBar(m *schemas.MemoryInfo, width int) string {
	others := m.ForeignMemory + m.ZombieMemory + m.RevokingMemory
	parts := []struct {
		sign  string
		bytes int64
	}{{"#", m.UsedMemory - others - m.ReservedMemory - m.ModelMemory}, {"m", m.ModelMemory}, {"r", m.ReservedMemory}, {"x", others}, {"~", m.PooledMemory}}
	var b strings.Builder
	var sum int64
	drawn := 0
	for _, p := range parts {
		sum += max(0, p.bytes)
		if m.TotalMemory <= 0 {
			break
		}
		upTo := min(width, int((float64(sum)/float64(m.TotalMemory))*float64(width)+0.5))
		b.WriteString(strings.Repeat(p.sign, max(0, upTo-drawn)))
		drawn = max(drawn, upTo)
	}
	return "[" + b.String() + strings.Repeat(".", width-drawn) + "]"
}

// frame is a view cut to the terminal's size, drawn over what was there.
func frame(view string, width, height int) string {
	var b strings.Builder
	b.WriteString("\x1b[H")
	n := 0
	for line := range strings.Lines(view) {
		if n == height-1 {
			break
		}
		line = strings.TrimSuffix(line, "\n")
		for utf8.RuneCountInString(line) > width {
			_, size := utf8.DecodeLastRuneInString(line)
			line = line[:len(line)-size]
		}
		b.WriteString(line + "\x1b[K\r\n")
		n++
	}
	b.WriteString("\x1b[J")
	return b.String()
}

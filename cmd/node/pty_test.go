package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY makes a terminal: ours is what a person sees and types, theirs what a program has.
func openPTY(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Told to the runtime as one that may wait, so that a deadline ends a read.
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	ours = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	if err := unix.IoctlSetWinsize(int(theirs.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 90}); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func modes(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

// over is written to the terminal when the program has ended.
const over = "(over)"

// On a real terminal top draws within its size, and however it is ended the terminal is as it
// was: its modes, its screen and its cursor.
func TestTopOnATerminal(t *testing.T) {
	b := startNode(t, replies(house()))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(ours *os.File, p *os.Process) error{
		"q":       func(ours *os.File, _ *os.Process) error { _, err := ours.WriteString("q"); return err },
		"Ctrl-C":  func(ours *os.File, _ *os.Process) error { _, err := ours.WriteString("\x03"); return err },
		"SIGINT":  func(_ *os.File, p *os.Process) error { return p.Signal(os.Interrupt) },
		"SIGTERM": func(_ *os.File, p *os.Process) error { return p.Signal(syscall.SIGTERM) },
		"SIGHUP":  func(_ *os.File, p *os.Process) error { return p.Signal(syscall.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := openPTY(t)
			before := modes(t, theirs)
			c := exec.Command(self, "top", "--interval", "50ms", "--url", b.URL())
			c.Env = append(os.Environ(), mainEnv+"=1")
			c.Stdin, c.Stdout, c.Stderr = theirs, theirs, theirs
			c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			if err := ours.SetReadDeadline(time.Now().Add(2 * patience)); err != nil {
				t.Fatal(err)
			}
			seen, chunk := bytes.Buffer{}, make([]byte, 4096)
			for strings.Count(seen.String(), "\x1b[H") < 3 { // drawn twice, and begun again
				n, err := ours.Read(chunk)
				seen.Write(chunk[:n])
				if err != nil {
					t.Fatalf("%v after %q", err, seen.String())
				}
			}
			if m := modes(t, theirs); m.Lflag&(unix.ICANON|unix.ECHO) != 0 || m.Cc[unix.VSUSP] != 0 {
				t.Error("keys are shown or wait for the end of the line")
			}
			if err := end(ours, c.Process); err != nil {
				t.Fatal(err)
			}
			// What it writes is read on, or it would wait for room.
			all := make(chan string, 1)
			go func() {
				for !strings.HasSuffix(seen.String(), over) {
					n, err := ours.Read(chunk)
					seen.Write(chunk[:n])
					if err != nil {
						break
					}
				}
				all <- seen.String()
			}()
			if err := <-ended; err != nil {
				t.Errorf("it ended with %v", err)
			}
			if m := modes(t, theirs); m != before {
				t.Errorf("the terminal's modes are %+v, were %+v", m, before)
			}
			if _, err := theirs.WriteString(over); err != nil {
				t.Fatal(err)
			}
			text, whole := strings.CutSuffix(<-all, over)
			if !whole {
				t.Fatalf("the terminal shows %q", text)
			}
			if !strings.HasPrefix(text, "\x1b[?1049h\x1b[?25l") || !strings.HasSuffix(text, "\x1b[?25h\x1b[?1049l") {
				t.Errorf("the screen is not given back: begins %q, ends %q", text[:min(len(text), 30)], text[max(0, len(text)-30):])
			}
			frames := strings.Split(text, "\x1b[H")
			if lines := strings.Count(frames[1], "\n"); lines > 19 || !strings.Contains(frames[1], "isobar top  node here") {
				t.Errorf("%d lines on a screen of 20: %q", lines, frames[1])
			}
		})
	}
}

// nohup has a program go on without its terminal.
func TestNohupIsObeyed(t *testing.T) {
	for ignored, want := range map[bool]int{false: 3, true: 2} {
		if got := ending(func(os.Signal) bool { return ignored }); len(got) != want || slices.Contains(got, os.Signal(syscall.SIGHUP)) == ignored {
			t.Errorf("ignored %v: %v", ignored, got)
		}
	}
}

package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that a program run by `isobar exec` gets too.
var passedOn = [...]os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH, unix.SIGCONT}

// childSignals are the signals for a child. What a terminal sends when keys are pressed it
// sends to the child as well: passed on, the child would get it twice, and end at once where a
// second Ctrl-C means that.
func childSignals() (<-chan os.Signal, func()) {
	all := make(chan os.Signal, 16)
	signal.Notify(all, passedOn[:]...)
	out := make(chan os.Signal)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case s := <-all:
				if (s == unix.SIGINT || s == unix.SIGQUIT) && foreground() {
					continue
				}
				select {
				case out <- s:
				case <-done:
					return
				}
			}
		}
	}()
	return out, func() { signal.Stop(all); close(done) }
}

// foreground reports whether our process group is the one that the controlling terminal
// sends its signals to.
func foreground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// adoptOrphans makes this process the parent of descendants whose parents end, so that they
// stay in the tree that a reservation follows. begin is called with the child once it
// runs, and buries the others when they exit; settle ends that.
func adoptOrphans() (begin func(child int) (settle func())) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return func(int) func() { return func() {} } // an old kernel: then they are missed
	}
	return func(child int) func() {
		exits := make(chan os.Signal, 1)
		signal.Notify(exits, unix.SIGCHLD)
		done := make(chan struct{})
		go func() {
			for {
				select {
				case <-exits:
					buryOrphans(child)
				case <-done:
					return
				}
			}
		}()
		return func() { signal.Stop(exits); close(done) }
	}
}

// buryOrphans waits for every child that has exited but one.
func buryOrphans(except int) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return // only a malformed pattern fails
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil && pid != except {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // one that runs is left alone
			}
		}
	}
}

// Command isobar is the memory plane of one host, and its client.
//
// `isobar run` is the node; `isobar vault` the process that keeps its memory while no
// node runs; everything else talks to a node. The command line is parsed here and the
// rooms are called: nothing is decided. `isobar --help` and `isobar COMMAND --help` say
// how to use it.
//
// Exit codes: 0 done; 1 refused or failed; 2 wrong usage or configuration; 3 no node
// answers. `isobar exec` has the code of the program that it ran.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/doctor"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/vault"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version string

func main() {
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, ending(signal.Ignored)...)
	p := &program{
		name: os.Args[0], in: os.Stdin, out: os.Stdout, err: os.Stderr,
		outTerminal: terminal(os.Stdout), errTerminal: terminal(os.Stderr),
		world: node.Machine(), version: buildVersion(version), interrupts: interrupts, exit: os.Exit,
		now: time.Now, connect: client.Connect, executable: os.Executable,
		signals: childSignals, adopt: adoptOrphans,
		node: node.Run, vault: vault.Run, findModel: findModel, machine: doctor.Here, raw: rawInput, screen: screenSize, cuda: node.HasGPUs,
		exists: func(path string) bool { _, err := os.Stat(path); return err == nil },
		become: func(path string, args []string) error { return unix.Exec(path, args, os.Environ()) },
	}
	os.Exit(p.main(context.Background(), os.Args[1:]))
}

// ending are the signals that end a command as Ctrl-C does. A terminal that is closed sends
// SIGHUP: a node stops as cleanly by it, unless nohup has the signal ignored.
func ending(ignored func(os.Signal) bool) []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}

// program is the command line and everything it needs of the world.
type program struct {
	name     string // as the user called it
	in       io.Reader
	out, err io.Writer
	// outTerminal is the width of the terminal that out is, 0 for none; errTerminal likewise.
	outTerminal, errTerminal int
	world                    *node.World
	version                  string
	// interrupts are the signals of ending.
	interrupts <-chan os.Signal
	exit       func(code int) // ends the process at once
	// signals are those that a program run by exec gets too, until stop is called; adopt
	// makes its orphans ours: see adoptOrphans.
	signals    func() (signals <-chan os.Signal, stop func())
	adopt      func() (begin func(child int) (settle func()))
	now        func() time.Time
	connect    func(client.Options) (*client.Client, error)
	executable func() (string, error)
	node       func(ctx context.Context, cfg node.Config, ready func(node.Info)) error
	vault      func(ctx context.Context, cfg vault.RunConfig) error
	findModel  func(roots []string) (path string, ok bool)
	// raw has keys come one by one until restore is called; screen is the terminal's size.
	raw    func() (restore func(), err error)
	screen func() (width, height int)
	// args is the command line; cuda is true of the program with the driver of GPUs.
	args []string
	cuda bool
	// exists reports whether there is a file; become replaces this process by another program.
	exists  func(path string) bool
	become  func(path string, args []string) error
	machine func(runtimeDir, stateDir string, sockets []string, streams func(context.Context) (doctor.Streams, error)) *doctor.Machine
}

// terminal is the width in columns of the terminal that a file is, 0 if it is none.
func terminal(f *os.File) int {
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return 0
	}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		return int(size.Col)
	}
	return 80
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// execCommand runs a program inside a reservation.
type execCommand struct {
	Reserve  string        `name:"reserve" required:"" placeholder:"SIZE" help:"How much is kept free for the program, such as 20GiB."`
	Device   string        `name:"device" placeholder:"ID" help:"The device; needless where the node has one only."`
	Timeout  time.Duration `name:"timeout" default:"10m" placeholder:"DURATION" help:"The longest wait in the queue; 0s does not queue."`
	Purpose  string        `name:"purpose" placeholder:"TEXT" help:"What others see that it is for; the program's name otherwise."`
	Priority int           `name:"priority" placeholder:"N" help:"Higher ones are served first."`
	Command  []string      `arg:"" name:"command" help:"The program and its arguments, after --."`
	connection
}

// Help is the long help.
func (execCommand) Help() string {
	return `Asks the node of this host for a reservation, waits in its queue where there is no room yet, and then runs the program, unchanged, as a child. What the program and its descendants use counts against the reservation; should they use more, that counts. The reservation ends with the program.

    isobar exec --reserve 20GiB --device gpu-0 -- python train.py
    isobar exec --reserve 4GiB --device ram-0 --timeout 1h -- ./convert model.bin

Signals are passed on, and the exit code is the program's: 128 + N where signal N ended it, 126 and 127 where it cannot be run or found. It finds in its environment ISOBAR_RESERVATION (the allocation_id), ISOBAR_RESERVATION_DEVICE and ISOBAR_RESERVATION_BYTES. Ctrl-C while it waits leaves the queue.`
}

// The exit codes of a program that was not run, as shells have them.
const (
	exitCannotRun = 126
	exitNotFound  = 127
	exitSignalled = 128 // plus the signal's number
)

// childExit is the end of a program that was run: its exit code is ours, and it has said
// itself what there was to say.
type childExit struct{ code int }

func (e *childExit) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// notRun is a program that cannot be started.
type notRun struct {
	code int
	text string
}

func (e *notRun) Error() string { return e.text }

// Run implements the command.
func (e *execCommand) Run(k *call) error {
	path, err := exec.LookPath(e.Command[0])
	switch {
	case errors.Is(err, os.ErrPermission):
		return &notRun{exitCannotRun, fmt.Sprintf("%s cannot be run: make it executable (chmod +x)", e.Command[0])}
	case err != nil:
		return &notRun{exitNotFound, fmt.Sprintf("%s is not found: give its path, or correct PATH", e.Command[0])}
	}
	spec, data, err := e.request()
	if err != nil {
		return err
	}
	conn, err := e.open(k, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := (&callCommand{}).follow(k, conn, spec, data)
	if err != nil {
		return err
	}
	var granted schemas.AllocateReply
	if err := json.Unmarshal(raw, &granted); err != nil {
		return fmt.Errorf("the node's answer: %w", err)
	}
	defer e.release(k, conn, granted.AllocationID)
	return k.runChild(path, e.Command, []string{
		"ISOBAR_RESERVATION=" + granted.AllocationID,
		"ISOBAR_RESERVATION_DEVICE=" + granted.DeviceID,
		fmt.Sprintf("ISOBAR_RESERVATION_BYTES=%d", granted.Allocation.SizeBytes),
	})
}

// request is what is asked of the node. The reservation follows this process: it is there
// before the program is, and the program and what it starts are its descendants.
func (e *execCommand) request() (*schemas.Spec, map[string]any, error) {
	size, err := node.ParseSize(e.Reserve)
	if err != nil || size < 1 {
		return nil, nil, usage("--reserve: %q is not a size: write it like 512MiB or 20GiB", e.Reserve)
	}
	if e.Timeout < 0 {
		return nil, nil, usage("--timeout: %s is negative", e.Timeout)
	}
	spec, _ := schemas.Lookup(schemas.ActionAllocate)
	purpose := e.Purpose
	if purpose == "" {
		purpose = e.Command[0][strings.LastIndexByte(e.Command[0], '/')+1:]
	}
	data := map[string]any{"size_bytes": size, "class": string(schemas.ClassReservation), "pid": os.Getpid(),
		"purpose": purpose, "timeout_seconds": int64((e.Timeout + time.Second - 1) / time.Second), "priority": e.Priority}
	if e.Device != "" {
		data["device_id"] = e.Device
	}
	return spec, data, nil
}

// releasePatience bounds the wait for the node at the end: the reservation ends with this
// process in any case.
const releasePatience = 2 * time.Second

func (e *execCommand) release(k *call, conn *client.Client, id string) {
	ctx, cancel := context.WithTimeout(k.ctx, releasePatience)
	defer cancel()
	var refused *schemas.Error
	err := conn.Call(ctx, schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: id}, nil)
	if errors.As(err, &refused) && refused.Code == schemas.CodeAllocationNotFound {
		fmt.Fprintln(k.err, "isobar: the reservation had ended before the program did")
	}
}

// runChild runs a program to its end with our files and environment. Its exit code comes
// back as a *childExit, success as nil.
func (k *call) runChild(path string, argv, environment []string) error {
	signals, stop := k.signals()
	defer stop()
	begin := k.adopt()
	cmd := &exec.Cmd{Path: path, Args: argv, Env: append(append([]string{}, k.world.Environ...), environment...),
		Stdin: k.in, Stdout: k.out, Stderr: k.err}
	if err := cmd.Start(); err != nil {
		return &notRun{exitCannotRun, fmt.Sprintf("%s cannot be run: %v", argv[0], err)}
	}
	defer begin(cmd.Process.Pid)()
	done := make(chan struct{})
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have exited meanwhile
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(done)
	<-passed
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &childExit{exitSignalled + int(ws.Signal())}
	}
	return &childExit{exit.ExitCode()}
}

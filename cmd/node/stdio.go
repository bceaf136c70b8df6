package main

import (
	"errors"
	"strings"

	"github.com/isobar-project/isobar/bus"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/bus/forward"
	"github.com/isobar-project/isobar/schemas"
)

// stdioCommand serves the contract's envelope on standard input and output.
type stdioCommand struct {
	connection
}

// Help is the long help.
func (stdioCommand) Help() string {
	return `Each line of input is one command, {"request_id": …, "action": …, "data": {…}}, and each line of output its answer, in the order in which they are done. It ends at the end of input, when everything is answered.

    echo '{"action":"get_pressure"}' | isobar stdio

TRACEPARENT in the environment makes every command a part of that trace.`
}

// Run implements the command.
func (s *stdioCommand) Run(k *call) error {
	conn, err := s.open(k, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := k.interruptible()
	defer stop()
	if err := conn.Call(ctx, schemas.ActionListDevices, nil, nil); err != nil {
		return err
	}
	name := s.Node
	if name == "" {
		if name, err = whoAnswers(ctx, conn); err != nil {
			return err
		}
	}
	var opts []client.CallOption
	for _, e := range k.world.Environ {
		if header, ok := strings.CutPrefix(e, "TRACEPARENT="); ok {
			opts = append(opts, client.WithTraceparent(header))
		}
	}
	desk := forward.New(ctx, conn, opts...)
	err = bus.Stdio(ctx, k.in, k.out, bus.StdioConfig{Node: name, Desk: desk})
	desk.Wait()
	if errors.Is(err, errInterrupted) {
		return nil
	}
	return err
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/lab"
)

type labCommand struct {
	Rounds int    `default:"3" help:"How many rounds with the optimizer, and as many without."`
	Limit  int64  `name:"limit-mib" default:"2048" help:"The limit of the control group in MiB."`
	Kernel string `placeholder:"FILE" help:"Do it in a virtual machine with this kernel instead, emulated by qemu-system-x86_64: version 2 of control groups."`
	Log    bool   `help:"Show what the nodes say."`
}

// Run does the experiment and prints its table.
func (c *labCommand) Run(p *program) error {
	o := lab.Options{Rounds: c.Rounds, Limit: c.Limit << 20, Program: p.self}
	if c.Log {
		o.Log = p.err
	}
	var r *lab.Report
	var err error
	if c.Kernel != "" {
		r, err = lab.Guest(p.ctx, c.Kernel, o)
	} else {
		r, err = lab.Run(p.ctx, o)
	}
	if r != nil && len(r.Rounds) > 0 {
		if _, werr := io.WriteString(p.out, r.Markdown()); err == nil {
			err = werr
		}
	}
	if err == nil && !r.Shown() {
		err = errors.New("processes were killed although the optimizer worked, or none without it")
	}
	return err
}

type numaLabCommand struct {
	Kernel string `required:"" placeholder:"FILE" help:"The kernel of the virtual machine, which qemu-system-x86_64 emulates."`
	Log    bool   `help:"Show the machine's console."`
}

// Run does the experiment and prints its table.
func (c *numaLabCommand) Run(p *program) error {
	o := lab.Options{Program: p.self}
	if c.Log {
		o.Log = p.err
	}
	r, err := lab.GuestNUMA(p.ctx, c.Kernel, o)
	if r != nil {
		if _, werr := io.WriteString(p.out, r.Markdown()); err == nil {
			err = werr
		}
	}
	if err == nil && !r.Shown() {
		err = errors.New("not everything holds")
	}
	return err
}

// labInit is the life of a guest, whose words are its limit in MiB and its rounds, or "numa"
// and the number of its nodes.
func labInit(ctx context.Context, words []string) {
	if words[0] == "numa" {
		lab.InitNUMA(ctx, lab.Options{Program: []string{"/init"}, Log: os.Stdout})
		return
	}
	limit, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return
	}
	rounds, err := strconv.Atoi(words[1])
	if err != nil {
		return
	}
	lab.Init(ctx, lab.Options{Limit: limit << 20, Rounds: rounds, Program: []string{"/init"}, Log: os.Stdout}, os.Stdout)
}

type labNodeCommand struct {
	Spec string `arg:""`
}

// Run is the node of a round.
func (c *labNodeCommand) Run(p *program) error {
	var s lab.Spec
	if err := json.Unmarshal([]byte(c.Spec), &s); err != nil {
		return err
	}
	return lab.Inside(p.ctx, s, p.self, p.out, p.err)
}

type labGrowCommand struct {
	Bytes int64 `arg:""`
	Rate  int64 `arg:""`
}

// Run is the foreign process of a round.
func (c *labGrowCommand) Run(p *program) error { return lab.Grow(c.Bytes, c.Rate, p.in, p.out) }

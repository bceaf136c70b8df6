package conform

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Options say what to check.
type Options struct {
	// NATSURL is the server of a node on this machine that serves nobody else; "" starts one
	// of conform's own.
	NATSURL string
	// Quiet prints only checks that failed, and the end.
	Quiet bool
	// Only runs the checks whose names contain one of these; empty runs all.
	Only []string
	// Program calls this program, for the children.
	Program []string
	// Out gets one line for each check.
	Out io.Writer
}

// Result counts the checks.
type Result struct{ Passed, Failed int }

// check is one thing tried, and what must come of it.
type check struct {
	name string
	run  func()
}

// Run checks a node. The error says that there was none to check.
func Run(ctx context.Context, o Options) (Result, error) {
	var r Result
	w, err := open(ctx, o)
	if err != nil {
		return r, err
	}
	for _, c := range w.checks() {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
		if !chosen(c.name, o.Only) {
			continue
		}
		why := w.try(c)
		if why == "" {
			r.Passed++
			if !o.Quiet {
				fmt.Fprintf(o.Out, "ok      %s\n", c.name)
			}
			continue
		}
		r.Failed++
		fmt.Fprintf(o.Out, "FAILED  %s: %s\n", c.name, why)
	}
	if cerr := w.close(); err == nil {
		err = cerr
	}
	fmt.Fprintf(o.Out, "%d passed, %d failed\n", r.Passed, r.Failed)
	return r, err
}

func chosen(name string, only []string) bool {
	for _, part := range only {
		if strings.Contains(name, part) {
			return true
		}
	}
	return len(only) == 0
}

// try runs a check, then releases what it was granted. It says why the check failed.
func (w *world) try(c check) (why string) {
	func() {
		defer recovered(&why)
		c.run()
	}()
	func() {
		var left string
		defer func() {
			if why == "" {
				why = left
			}
		}()
		defer recovered(&left)
		w.tidy()
	}()
	return strings.ReplaceAll(why, "\n", " ")
}

func recovered(why *string) {
	switch r := recover().(type) {
	case nil:
	case unmet:
		*why = r.why
	default:
		panic(r)
	}
}

// checks are all checks, in the order of the contract.
func (w *world) checks() []check {
	var out []check
	for _, f := range formats {
		c := caller{w, f}
		for _, s := range w.samples() {
			out = append(out, c.fields(s)...)
			out = append(out, c.envelopes(s)...)
			out = append(out, c.payloads(s)...)
		}
		out = append(out, c.anyAction()...)
		out = append(out, c.effects()...)
		if w.own != nil {
			out = append(out, c.tenantChecks()...)
			out = append(out, c.nodeChecks()...)
		}
	}
	out = append(out, w.discovery()...)
	return append(out, w.events()...)
}

// Command bus-test measures and tries a node: `bus-test bench` compares it with a raw echo
// over the same NATS server, `bus-test soak` puts it under random load beside a model of what
// must be true, `bus-test conform` checks it against the wire contract. It speaks to nodes over NATS and the data socket only; to count what the vault
// holds it asks the vault.
//
// Exit codes: 0 done; 1 failed, or something that must be true was not; 2 wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/bench"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/conform"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/consumer"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/grants"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/soak"
	"github.com/isobar-project/isobar/vault"
)

// grammar is the command line.
type grammar struct {
	Bench benchCommand `cmd:"" help:"Measure a node beside a raw echo over the same NATS server."`
	Soak  soakCommand  `cmd:"" help:"Put a node under random load, beside a model of what must be true."`

	Conform conformCommand `cmd:"" help:"Check a node against the wire contract, command by command, and what its commands do."`

	Grants grantsCommand `cmd:"" help:"Measure what one grant of a device costs beside a raw echo (one JSON object)."`

	PressureLab labCommand `cmd:"" name:"pressure-lab" help:"Have a foreign process grow against a full warm tier in a control group (root)."`

	NUMALab numaLabCommand `cmd:"" name:"numa-lab" help:"Show on a virtual machine of two NUMA nodes that memory lies on the node of its device."`

	// What the program calls itself as.
	LabNode  labNodeCommand  `cmd:"" hidden:"" name:"lab-node"`
	LabGrow  labGrowCommand  `cmd:"" hidden:"" name:"lab-grow"`
	Node     nodeCommand     `cmd:"" hidden:""`
	Vault    vaultCommand    `cmd:"" hidden:""`
	Consumer consumerCommand `cmd:"" hidden:""`
}

// program is what the commands need of the world.
type program struct {
	ctx      context.Context
	self     []string // how to call this program again
	in       io.Reader
	out, err io.Writer
}

type benchCommand struct {
	NATSURL  string   `name:"nats-url" placeholder:"URL" help:"Measure the node on this NATS server; figures that need a node of bench's own are null." xor:"where"`
	Embedded bool     `help:"Measure nodes of bench's own, started and ended by it (the default)." xor:"where"`
	Device   string   `placeholder:"ID" help:"The device to allocate on, with --nats-url; by default the first of main memory."`
	JSON     bool     `name:"json" help:"Write one JSON object instead of a table."`
	Only     []string `placeholder:"NAME" help:"Measure these lines only: ${lines}."`
	Quick    bool     `help:"Take few samples: shows that everything works, and no more."`
	Rounds   int      `placeholder:"COUNT" help:"How many rounds; more is steadier. By default 20."`
	Check    bool     `help:"Fail if a target was missed."`
	Profile  string   `placeholder:"FILE" help:"Write a CPU profile of the node while 64 clients allocate."`
	LogLevel string   `placeholder:"LEVEL" help:"The log level of bench's own nodes; by default the node's, one record a command."`
}

// Run measures and writes the report.
func (c *benchCommand) Run(p *program) error {
	report, err := bench.Run(p.ctx, bench.Options{NATSURL: c.NATSURL, Device: c.Device, Only: c.Only, Quick: c.Quick, Rounds: c.Rounds,
		Program: p.self, Profile: c.Profile, LogLevel: c.LogLevel, Progress: p.err})
	if report != nil {
		if werr := c.write(p, report); err == nil {
			err = werr
		}
	}
	if err != nil {
		return err
	}
	if n := report.Missed(); c.Check && n > 0 {
		return fmt.Errorf("%d targets were missed", n)
	}
	return nil
}

func (c *benchCommand) write(p *program, r *bench.Report) error {
	if !c.JSON {
		return r.WriteTable(p.out)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = p.out.Write(append(text, '\n'))
	return err
}

type soakCommand struct {
	Minutes  float64       `default:"10" help:"How long to go on."`
	Embedded bool          `help:"Use a node of soak's own (the default): it is killed and started again now and then." xor:"where"`
	NATSURL  string        `name:"nats-url" placeholder:"URL" help:"Use the node on this NATS server, which must be on this machine and serve nobody else." xor:"where"`
	Vault    string        `placeholder:"SOCKET" help:"The vault's socket of that node, to count its memory at the end."`
	Report   string        `placeholder:"FILE" help:"Write the report as Markdown."`
	Seed     uint64        `placeholder:"N" help:"The seed of the random choices; by default from the clock."`
	Kill     time.Duration `name:"kill-every" default:"25s" help:"The time between two kills of the node; 0 for none."`
}

// Run soaks, and writes the report.
func (c *soakCommand) Run(p *program) error {
	o := soak.Options{For: time.Duration(c.Minutes * float64(time.Minute)), NATSURL: c.NATSURL, VaultSocket: c.Vault, Seed: c.Seed, KillEvery: c.Kill,
		Program: p.self, Progress: p.err}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	report, err := soak.Run(p.ctx, o)
	if report != nil {
		text := report.Markdown()
		if c.Report != "" {
			err = errors.Join(err, os.WriteFile(c.Report, []byte(text), 0o644))
		}
		if _, werr := io.WriteString(p.out, text); err == nil {
			err = werr
		}
	}
	if err == nil && len(report.Violations) > 0 {
		err = fmt.Errorf("%d things that must be true were not", len(report.Violations))
	}
	return err
}

type conformCommand struct {
	Embedded bool     `help:"Check a node of conform's own (the default)." xor:"where"`
	NATSURL  string   `name:"nats-url" placeholder:"URL" help:"Check the node on this NATS server, which must be on this machine and serve nobody else." xor:"where"`
	Quiet    bool     `help:"Print only the checks that failed, and the end."`
	Only     []string `placeholder:"PART" help:"Run only the checks whose names contain one of these."`
}

// Run checks, one line a check.
func (c *conformCommand) Run(p *program) error {
	r, err := conform.Run(p.ctx, conform.Options{NATSURL: c.NATSURL, Quiet: c.Quiet, Only: c.Only, Program: p.self, Out: p.out})
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("%d of %d checks failed", r.Failed, r.Passed+r.Failed)
	}
	return err
}

type grantsCommand struct {
	NATSURL string `name:"nats-url" required:"" placeholder:"URL" help:"The server of the node, which must be idle."`
	Device  string `required:"" placeholder:"ID" help:"Where to allocate."`
	Size    int64  `default:"67108864" placeholder:"BYTES" help:"What each grant has (64 MiB)."`
	Count   int    `default:"1000" help:"How many grants."`
}

// Run measures.
func (c *grantsCommand) Run(p *program) error {
	report, err := grants.Run(p.ctx, grants.Options{NATSURL: c.NATSURL, Device: c.Device, SizeBytes: c.Size, Count: c.Count})
	if err != nil {
		return err
	}
	return json.NewEncoder(p.out).Encode(report)
}

type nodeCommand struct {
	Spec string `arg:""`
}

// Run is the life of a node of ours.
func (c *nodeCommand) Run(p *program) error {
	var spec embedded.Spec
	if err := json.Unmarshal([]byte(c.Spec), &spec); err != nil {
		return err
	}
	return embedded.Serve(context.WithoutCancel(p.ctx), spec, p.self, p.in, p.out)
}

type vaultCommand struct {
	Socket string `arg:""`
}

// Run is the life of that node's vault.
func (c *vaultCommand) Run(p *program) error {
	// It ends by itself, when its node drops everything or none returns.
	return vault.Run(context.WithoutCancel(p.ctx), vault.RunConfig{Config: vault.Config{SocketPath: c.Socket, NodeTimeout: time.Minute}})
}

type consumerCommand struct {
	Socket string `arg:""`
}

// Run is the life of a consumer.
func (c *consumerCommand) Run(p *program) error {
	return consumer.Serve(p.ctx, c.Socket, p.in, p.out)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getpid() == 1 && len(os.Args) == 3 {
		labInit(ctx, os.Args[1:]) // the first process of a lab's virtual machine, which has nothing yet
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bus-test:", err)
		os.Exit(1)
	}
	os.Exit(run(&program{ctx: ctx, self: []string{self}, in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Args[1:]))
}

// run is the program; it returns the exit code.
func run(p *program, args []string) int {
	var g grammar
	code := 0
	parser, err := kong.New(&g, kong.Name("bus-test"), kong.Description("Measures and tries a memory node."), kong.Writers(p.out, p.err),
		kong.Exit(func(c int) { code = c; panic(ended{}) }), kong.Vars{"lines": strings.Join(bench.Lines(), ", ")}, kong.UsageOnError())
	if err != nil {
		fmt.Fprintln(p.err, "bus-test:", err)
		return 2
	}
	return func() (out int) {
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(ended); !ok {
					panic(r)
				}
				out = code
			}
		}()
		c, err := parser.Parse(args)
		if err != nil {
			fmt.Fprintln(p.err, "bus-test:", err)
			return 2
		}
		if err := c.Run(p); err != nil {
			fmt.Fprintln(p.err, "bus-test:", err)
			return 1
		}
		return 0
	}()
}

// ended unwinds after kong has written help.
type ended struct{}

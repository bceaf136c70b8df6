package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/isobar-project/isobar/bus/accounts"
	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// grammar is the command line.
type grammar struct {
	File string `name:"config" placeholder:"FILE" help:"The configuration file (ISOBAR_CONFIG; else the first there is of $$XDG_CONFIG_HOME/isobar/config.yaml and /etc/isobar/config.yaml)."`

	Run     runCommand     `cmd:"" help:"Run the node of this host."`
	Vault   vaultCommand   `cmd:"" help:"Run the vault, which keeps memory while no node runs. A node starts one by itself."`
	Call    callCommand    `cmd:"" help:"Give a node one command: isobar call ACTION key=value…"`
	Exec    execCommand    `cmd:"" help:"Run a program inside a reservation: isobar exec --reserve 20GiB --device gpu-0 -- COMMAND"`
	Status  statusCommand  `cmd:"" help:"Show devices, models, grants, queue and pressure of a node."`
	Top     topCommand     `cmd:"" help:"Show a node live: devices, pressure, queue, models, events."`
	Watch   watchCommand   `cmd:"" help:"Follow events, one line each."`
	Doctor  doctorCommand  `cmd:"" help:"Look whether this machine has what a node needs, and say what mends it."`
	Config  configCommand  `cmd:"" help:"Show the configuration in force, and where each value came from."`
	Stdio   stdioCommand   `cmd:"" help:"Take commands from standard input, one JSON object a line."`
	Version versionCommand `cmd:"" help:"Show the version."`
}

// vaultGrammar is the part of grammar that the vault needs. The vault lives for
// weeks beside every node, and a grammar that it never uses again is a megabyte.
type vaultGrammar struct {
	File  string       `name:"config" placeholder:"FILE" help:"The configuration file."`
	Vault vaultCommand `cmd:"" help:"Run the vault."`
}

const description = `Isobar owns the memory of one host and hands it out to the processes that serve models.

Begin with "isobar run" in one terminal and "isobar status" in another. "isobar COMMAND --help" has examples.`

// call is what a command runs with.
type call struct {
	*program
	ctx  context.Context
	file string // --config
}

// main runs one command line and returns the exit code.
func (p *program) main(ctx context.Context, args []string) int {
	p.args = args
	var root any
	var file *string
	if len(args) > 0 && args[0] == "vault" {
		g := &vaultGrammar{}
		g.Vault.Plugins = kong.Plugins{settingFlags(node.ScopeVault)}
		root, file = g, &g.File
	} else {
		g := &grammar{}
		g.Run.Plugins = kong.Plugins{settingFlags(node.ScopeNode)}
		g.Vault.Plugins = kong.Plugins{settingFlags(node.ScopeVault)}
		g.Config.Plugins = kong.Plugins{settingFlags(node.ScopeNode)}
		root, file = g, &g.File
	}
	exited := -1
	parser, err := kong.New(root, kong.Name("isobar"), kong.Description(description), kong.Writers(p.out, p.err),
		kong.Exit(func(code int) {
			if exited < 0 {
				exited = code
			}
		}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 110, ValueFormatter: sentence}))
	if err != nil {
		return p.fail(fmt.Errorf("the command line's own grammar: %w", err))
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(flagsFirst(parser.Model, args))
	if exited >= 0 { // --help has been printed
		return exited
	}
	if err != nil {
		return p.fail(usageOf(args, err))
	}
	return p.fail(parsed.Run(&call{program: p, ctx: ctx, file: *file}))
}

// flagsFirst moves the flags of a command before its arguments, so that they may be
// given in any order: kong takes a list of arguments only in one piece.
func flagsFirst(model *kong.Application, args []string) []string {
	at := slices.IndexFunc(args, func(a string) bool {
		return slices.ContainsFunc(model.Children, func(n *kong.Node) bool { return n.Name == a })
	})
	if at < 0 {
		return args
	}
	valued := map[string]bool{}
	for _, n := range append([]*kong.Node{model.Node}, model.Children...) {
		if n == model.Node || n.Name == args[at] {
			for _, f := range n.Flags {
				valued["--"+f.Name] = !f.IsBool()
			}
		}
	}
	flags, rest := slices.Clone(args[:at+1]), []string{}
	for i := at + 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--":
			return slices.Concat(flags, rest, args[i:])
		case !strings.HasPrefix(a, "-") || a == "-":
			rest = append(rest, a)
		case valued[a] && i+1 < len(args):
			flags = append(flags, a, args[i+1])
			i++
		default:
			flags = append(flags, a)
		}
	}
	return append(flags, rest...)
}

// sentence is the help text as written: kong would add the name of the environment
// variable, which the texts have already.
func sentence(v *kong.Value) string { return v.Help }

// usageOf is an error of the command line, with where to look.
func usageOf(args []string, err error) error {
	command := ""
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			command = a + " "
			break
		}
	}
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil && parse.Context.Selected() == nil {
		command = ""
	}
	return usage("%v: `isobar %s--help` says how", err, command)
}

// connection is how client commands find their node.
type connection struct {
	URL         string `name:"url" placeholder:"URL" help:"The NATS server (ISOBAR_NATS_URL; else the node of this host's configuration)."`
	Node        string `name:"node" placeholder:"NAME" help:"The node to ask, where several answer; any otherwise."`
	Credentials string `name:"nats-credentials" placeholder:"FILE" help:"A .creds file to show to the server (ISOBAR_NATS_CREDENTIALS)."`
	NKey        string `name:"nats-nkey" placeholder:"FILE" help:"A file with the seed of an nkey, instead (ISOBAR_NATS_NKEY)."`
	Username    string `name:"nats-username" placeholder:"NAME" help:"The user to connect as (ISOBAR_NATS_USERNAME; the password is read from ISOBAR_NATS_PASSWORD or the configuration file)."`
}

// open connects as the flags and the configuration say.
func (c *connection) open(k *call, change func(*client.Options)) (*client.Client, error) {
	flags := map[string][]string{}
	for key, v := range map[string]string{"nats_url": c.URL, "nats_username": c.Username} {
		if v != "" {
			flags[key] = []string{v}
		}
	}
	for key, file := range map[string]string{"nats_credentials": c.Credentials, "nats_nkey": c.NKey} {
		if file == "" {
			continue
		}
		path, err := filepath.Abs(file)
		if err != nil {
			return nil, usage("--%s: %v", strings.ReplaceAll(key, "_", "-"), err)
		}
		flags[key] = []string{path}
	}
	cfg, err := node.Load(k.world, node.ScopeClient, node.Given{File: k.file, Flags: flags})
	if err != nil {
		return nil, err
	}
	if c.Node != "" && !schemas.ValidToken(c.Node) {
		return nil, usage("--node: %q cannot be a node's name", c.Node)
	}
	o := client.Options{URL: cfg.ClientURL(), CredentialsFile: cfg.NATSCredentials, NKeyFile: cfg.NATSNKey, Username: cfg.NATSUsername, Password: cfg.NATSPassword,
		Node: c.Node, Name: "isobar"}
	if o.TLS, err = cfg.ClientTLS(); err != nil {
		return nil, err
	}
	if o.Username != "" {
		// Where roles are configured it may listen to no other inbox.
		o.InboxPrefix = accounts.InboxPrefix(o.Username)
	}
	if change != nil {
		change(&o)
	}
	return k.connect(o)
}

// interruptible is a context that ends with the first interrupt. stop must be called.
func (k *call) interruptible() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(k.ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-k.interrupts:
			cancel(errInterrupted)
		case <-done:
		}
	}()
	return ctx, func() { close(done); cancel(nil) }
}

var errInterrupted = errors.New("interrupted")

package bench

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
)

// Main parses the command line, with a flag -json of its own, and runs measure, which
// prints tables as it goes and returns what is then printed as one JSON object. With -json
// the tables are left out. It ends the process: with 2 where the command line is wrong, with 1
// where measuring or printing failed.
func Main(measure func(tables io.Writer) (any, error)) {
	os.Exit(run(flag.CommandLine, os.Args[1:], os.Stdout, os.Stderr, measure))
}

func run(flags *flag.FlagSet, args []string, out, problems io.Writer, measure func(tables io.Writer) (any, error)) int {
	asJSON := flags.Bool("json", false, "print the JSON object alone")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintln(problems, "there are no arguments beside the flags: see -help")
		return 2
	}
	tables := out
	if *asJSON {
		tables = io.Discard
	}
	r, err := measure(tables)
	if err == nil {
		err = json.NewEncoder(out).Encode(r)
	}
	if err != nil {
		fmt.Fprintf(problems, "%s: %v\n", flags.Name(), err)
		return 1
	}
	return 0
}

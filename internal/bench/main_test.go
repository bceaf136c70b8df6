package bench

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestEveryCommandLine(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		args      string
		err       error
		code      int
		out, says string
	}{
		{"", nil, 0, "a table\n{\"a\":1}\n", ""},
		{"-json", nil, 0, "{\"a\":1}\n", ""},
		{"-json", broken, 1, "", "bench: broken\n"},
		{"file", nil, 2, "", "there are no arguments beside the flags: see -help\n"},
		{"-unknown", nil, 2, "", "flag provided but not defined: -unknown"},
	} {
		var out, problems strings.Builder
		flags := flag.NewFlagSet("bench", flag.ContinueOnError)
		flags.SetOutput(&problems)
		code := run(flags, strings.Fields(c.args), &out, &problems, func(tables io.Writer) (any, error) {
			fmt.Fprintln(tables, "a table")
			return map[string]int{"a": 1}, c.err
		})
		if code != c.code || out.String() != c.out || !strings.HasPrefix(problems.String(), c.says) {
			t.Errorf("%q: %d, %q, %q", c.args, code, &out, &problems)
		}
	}
}

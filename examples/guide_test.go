package examples

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// step is a command of a page and what it says there that it prints.
type step struct {
	line    int
	command string
	want    []string
	file    string // instead of a command: the name of a file with this text
}

// steps reads a page: blocks fenced as console are commands after "$ ", their further lines
// after "> ", and their output; a block fenced as python whose first line is a comment that
// ends in .py is a file.
func steps(t *testing.T, path string) []step {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []step
	fence, at := "", 0
	var block []string
	for i, line := range strings.Split(string(text), "\n") {
		switch mark, isFence := strings.CutPrefix(line, "```"); {
		case isFence && fence == "":
			fence, at, block = mark+" ", i+2, nil
		case isFence:
			if name, ok := fileName(fence, block); ok {
				out = append(out, step{line: at, file: name, command: strings.Join(block, "\n") + "\n"})
			}
			fence = ""
		case fence == "console ":
			last := len(out) - 1
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				out = append(out, step{line: i + 1, command: c})
			} else if c, ok := strings.CutPrefix(line, "> "); ok && last >= 0 && len(out[last].want) == 0 {
				out[last].command += "\n" + c
			} else if last < 0 || out[last].line < at {
				t.Fatalf("%s:%d: output without a command", path, i+1)
			} else {
				out[last].want = append(out[last].want, line)
			}
		default:
			block = append(block, line)
		}
	}
	return out
}

func fileName(fence string, block []string) (string, bool) {
	if len(block) == 0 {
		return "", false
	}
	name, ok := strings.CutPrefix(block[0], "# ")
	kind := map[string]string{"python ": ".py", "yaml ": ".yaml"}[fence]
	return name, ok && kind != "" && strings.HasSuffix(name, kind) && !strings.ContainsAny(name, " /")
}

// shell is one bash that runs all commands of a page.
type shell struct {
	t      *testing.T
	dir    string
	in     *os.File
	out    *bufio.Reader
	number int
}

func openShell(t *testing.T, dir string, env []string) *shell {
	t.Helper()
	cmd := exec.Command("bash", "--noprofile", "--norc")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	inRead, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, outWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inRead, outWrite, outWrite
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inRead.Close()
	outWrite.Close()
	// Too late is an end like any other: what the shell has started goes with it.
	stop := context.AfterFunc(ctx(t), func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	t.Cleanup(func() {
		in.Close()
		stop()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever is left
		_ = cmd.Wait()
		out.Close()
	})
	return &shell{t: t, dir: t.TempDir(), in: in, out: bufio.NewReader(out)}
}

// end begins the line that the shell prints after each command.
const end = "\x1eend "

// run gives the shell a command and returns its output and whether it succeeded.
func (s *shell) run(command string) (out []string, ok bool) {
	s.t.Helper()
	s.number++
	// From a file: the command finds no more input than a person's keyboard would give.
	file := filepath.Join(s.dir, fmt.Sprintf("step%d", s.number))
	if err := os.WriteFile(file, []byte(command+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(s.in, ". %s </dev/null; printf '\\n\\036end %%d\\n' $?\n", file); err != nil {
		s.t.Fatalf("%s: the shell has ended: %v", command, err)
	}
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s: the shell has ended, or this took too long: %v\n%s", command, err, strings.Join(out, "\n"))
		}
		line = strings.TrimRight(line, " \n")
		if code, last := strings.CutPrefix(line, end); last {
			if n := len(out); n > 0 && out[n-1] == "" {
				out = out[:n-1] // the end begins a line of its own
			}
			return out, code == "0"
		}
		if !jobNotice.MatchString(line) && !progress.MatchString(line) {
			out = append(out, line)
		}
	}
}

// jobNotice is what a shell says of a job that a signal has ended.
var jobNotice = regexp.MustCompile(`^(\S+: line \d+:)? +\d+ (Done|Killed|Terminated) +`)

// progress is what a terminal shows for a while, on a machine that takes its time.
var progress = regexp.MustCompile(`^isobar: [a-z_]+ is (queued|running) `)

// likely are what differs from run to run.
var likely = []struct{ what, becomes string }{
	{`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`, "ID"},
	{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`, "MOMENT"},
	{`\d\d:\d\d:\d\d\.\d{3}`, "TIME"},
	{`\b[\d.]+ (GiB|MiB|KiB)/s`, "RATE"},
	{`\b\d+(\.\d+)? (µs|ms|s|min)\b`, "DURATION"},
	{`^\d+ (holds|reads) `, "PID $1 "},
	{`\bpid \d+( +\d+)?`, "pid PID"},
	{`\b[a-z0-9-]+\.ID`, "NODE.ID"},
	{` +`, " "},
}

func normal(line string) string {
	for _, l := range likely {
		line = regexp.MustCompile(l.what).ReplaceAllString(line, l.becomes)
	}
	return strings.TrimRight(line, " ")
}

// sorted orders the rows of a table of grants, which come by their random ids.
func sorted(lines []string) []string {
	lines = slices.Clone(lines)
	row := func(i int) bool { return strings.HasPrefix(normal(lines[i]), " ID ") }
	for i := 0; i < len(lines); i++ {
		from := i
		for i < len(lines) && row(i) {
			i++
		}
		slices.SortFunc(lines[from:i], func(a, b string) int { return strings.Compare(normal(a), normal(b)) })
	}
	return lines
}

// agrees compares output with a page's: "…" stands for anything in its line, and for any
// number of lines where it is alone.
func agrees(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if strings.TrimSpace(want[0]) == "…" {
		for i := 0; i <= len(got); i++ {
			if agrees(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	if len(got) == 0 {
		return false
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(normal(want[0])), "…", ".*")
	return regexp.MustCompile("^"+pattern+"$").MatchString(normal(got[0])) && agrees(want[1:], got[1:])
}

// freePort is an address that nobody listens on, outside of the ports that the kernel gives
// to whoever names none: it stays free until the page's node takes it.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		at := fmt.Sprintf("127.0.0.1:%d", 11000+rand.IntN(20000))
		if l, err := net.Listen("tcp", at); err == nil {
			l.Close()
			return at
		}
	}
	t.Fatal("no port is free")
	return ""
}

// clone makes a repository of the working tree, as git would make it from what is there.
func clone(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, line := range [][]string{
		{"sh", "-c", `cd .. && git ls-files -z --cached --others --exclude-standard | xargs -0 -r ls -d 2>/dev/null | tar -cf - --no-recursion -T - | tar -xf - -C "$0"`, dir},
		{"git", "-C", dir, "init", "-q"},
		{"git", "-C", dir, "add", "-A"},
		{"git", "-C", dir, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "as it is"},
	} {
		if out, err := exec.CommandContext(ctx(t), line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(line, " "), err, out)
		}
	}
	return dir
}

// path finds python3 where the tests' Python is, if one is named.
func path() string {
	if exe := os.Getenv("ISOBAR_PYTHON"); exe != "" {
		return filepath.Dir(exe) + ":" + os.Getenv("PATH")
	}
	return os.Getenv("PATH")
}

// followPage runs a page command by command, in folders and on ports of its own, and compares
// what each prints with what the page says.
func followPage(t *testing.T, page string) {
	for _, name := range []string{"bash", "git", "curl", "python3"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("the page uses %s: apt-get install %s", name, name)
		}
	}
	short, err := os.MkdirTemp("", "fh") // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	nats, http := freePort(t), freePort(t)
	moved := strings.NewReplacer("127.0.0.1:4222", nats, "127.0.0.1:4280", http)
	back := strings.NewReplacer(nats, "127.0.0.1:4222", http, "127.0.0.1:4280", short, "/tmp/hour")
	s := openShell(t, short, []string{
		"ISOBAR_RUNTIME_DIR=" + short + "/run", "ISOBAR_STATE_DIR=" + short + "/state", "ISOBAR_LISTEN=" + nats, "ISOBAR_HTTP=" + http,
		"ISOBAR_VAULT_TIMEOUT=30s",    // should the test fail, nothing stays for long
		"ISOBAR_PRESSURE_SIGNALS=off", // a busy machine is not what the page is about
		"PATH=" + path(),
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url." + clone(t) + ".insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/isobar-project/isobar",
	})
	for _, c := range steps(t, page) {
		at := fmt.Sprintf("%s:%d", filepath.Base(page), c.line)
		if c.file != "" {
			if _, ok := s.run("cat >" + c.file + " <<'END OF FILE'\n" + moved.Replace(c.command) + "END OF FILE"); !ok {
				t.Fatalf("%s: %s cannot be written", at, c.file)
			}
			continue
		}
		got, ok := s.run(moved.Replace(c.command))
		for i := range got {
			got[i] = back.Replace(got[i])
		}
		t.Logf("%s: $ %s\n%s", at, c.command, strings.Join(got, "\n"))
		want := c.want
		for len(want) > 0 && want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		if (len(want) == 0 || len(want) == 1 && want[0] == "…") && !ok {
			t.Fatalf("%s: $ %s\nfailed, and said:\n%s", at, c.command, strings.Join(got, "\n"))
		}
		if len(want) > 0 && !agrees(sorted(want), sorted(got)) {
			t.Fatalf("%s: $ %s\nsaid:\n%s\n\nand not:\n%s", at, c.command, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestFirstHour types the first hour of the guide.
func TestFirstHour(t *testing.T) {
	followPage(t, filepath.Join("..", "docs", "guide", "first-hour.md"))
}

// TestPyTorch types the page on PyTorch where its Python has PyTorch.
func TestPyTorch(t *testing.T) {
	cmd := exec.CommandContext(ctx(t), "python3", "-c", "import torch")
	if exe := os.Getenv("ISOBAR_PYTHON"); exe != "" {
		cmd = exec.CommandContext(ctx(t), exe, "-c", "import torch")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the page was not run: no PyTorch here: %v\n%s", err, out)
	}
	followPage(t, filepath.Join("..", "docs", "guide", "pytorch.md"))
}

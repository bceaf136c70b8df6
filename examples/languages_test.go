package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/node/nodetest"
)

// follows is what the programs that follow the pressure say: 48 of 64 MiB are three quarters.
var follows = regexp.MustCompile(`(?s)pressure of ram-0 is low, sequence \d+
granted 50331648 bytes of ram-0 as \S+, claim at /\S+
pressure low -> moderate because of grant, 7\d\.\d % in use
freed 50331648 bytes, confirmed: true`)

// follow runs a program of another language against a node of its own.
func follow(t *testing.T, dir, exe string, args ...string) {
	t.Helper()
	n := nodetest.Start(t, nodetest.Devices("ram:ram-0=64MiB"))
	args = append(args, "--url", n.Info().URL, "--device", "ram-0", "--mib", "48", "--seconds", "60", "--events", "1")
	cmd := exec.CommandContext(ctx(t), exe, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || !follows.Match(out) {
		t.Errorf("%v\n%s", err, out)
	}
}

// toolchain finds a program, or says why the test cannot run.
func toolchain(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("the sample was not run: no %s on this machine", name)
	}
	return path
}

// TestJavaScript runs the JavaScript program. Its packages come from `make javascript`, which
// `make test` runs where there is an npm.
func TestJavaScript(t *testing.T) {
	node := toolchain(t, "node")
	if _, err := os.Stat(filepath.Join("javascript", "node_modules")); err != nil {
		t.Skip("the sample was not run: its packages are not installed (make javascript)")
	}
	follow(t, "javascript", node, "index.mjs")
}

// TestCSharp compiles and runs the C# program, with packages that dotnet finds.
func TestCSharp(t *testing.T) {
	dotnet := toolchain(t, "dotnet")
	out := t.TempDir()
	// A copy: the compiler writes beside the sources.
	src := t.TempDir()
	if err := os.CopyFS(src, os.DirFS("csharp")); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.CommandContext(ctx(t), dotnet, "restore", src).CombinedOutput(); err != nil {
		t.Skipf("the sample was not run: its packages are not to be had here: %v\n%s", err, text)
	}
	if text, err := exec.CommandContext(ctx(t), dotnet, "build", "--no-restore", "-o", out, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	follow(t, out, dotnet, "isobar-example.dll")
}

// TestSamplesAgree: the two programs take the same arguments and give the same commands.
func TestSamplesAgree(t *testing.T) {
	word := regexp.MustCompile(`memory\.events\.[a-z]+|get_pressure|pressure_changed|"(?:allocate|deallocate)"|--[a-z]+`)
	found := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		var out []string
		for _, w := range word.FindAllString(string(text), -1) {
			if !seen[w] {
				seen[w] = true
				out = append(out, w)
			}
		}
		return strings.Join(out, " ")
	}
	if js, cs := found("javascript/index.mjs"), found("csharp/Program.cs"); js != strings.Replace(cs, "-- ", "", 1) {
		t.Errorf("JavaScript: %s\nC#:         %s", js, cs)
	}
}

package deploy_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// packagePatience is how long one program may take, compilers included.
const packagePatience = 5 * time.Minute

// shell runs a program to its end and returns what it says.
func shell(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), packagePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

const packageVersion = "1.2.3-rc.1"

// packages builds the packages of this machine's sources into a folder of the test.
// Without ISOBAR_NFPM (make package-check sets it) there is the archive alone.
func packages(t *testing.T, script string, env ...string) (dir, sums string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dist")
	env = append([]string{"VERSION=" + packageVersion, "SOURCE_DATE_EPOCH=1700000000", "NFPM=" + os.Getenv("ISOBAR_NFPM")}, env...)
	return dir, shell(t, env, script, dir, "amd64")
}

// only is the one file of a kind.
func only(t *testing.T, dir, kind string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*."+kind))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, not one .%s: %v", found, kind, err)
	}
	return found[0]
}

// A person unpacks the archive, or installs the deb, and has a program that says its version,
// a page that names every command, and a configuration whose examples are sound.
func TestPackage(t *testing.T) {
	dir, sums := packages(t, "../scripts/package.sh")
	tree := t.TempDir()
	shell(t, nil, "tar", "-xzf", only(t, dir, "tar.gz"), "-C", tree, "--strip-components=1")
	t.Run("archive", func(t *testing.T) { inspect(t, tree) })
	if os.Getenv("ISOBAR_NFPM") == "" {
		t.Log("ISOBAR_NFPM names no nfpm (make package-check does): deb and rpm were not built")
		return
	}
	t.Run("deb", func(t *testing.T) { debian(t, only(t, dir, "deb")) })
	t.Run("rpm", func(t *testing.T) { redHat(t, only(t, dir, "rpm")) })
	t.Run("again", func(t *testing.T) {
		// The same sources in another folder, at another hour, in another zone.
		sources := t.TempDir()
		for _, name := range strings.Fields(shell(t, nil, "git", "-C", "..", "ls-files", "--cached", "--others", "--exclude-standard")) {
			copyFile(t, filepath.Join("..", name), filepath.Join(sources, name))
		}
		_, again := packages(t, filepath.Join(sources, "scripts", "package.sh"), "TZ=Asia/Tokyo", "LANG=de_DE.UTF-8")
		if again != sums || strings.Count(sums, "\n") != 3 {
			t.Errorf("not the same bytes:\n%s%s", sums, again)
		}
	})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		return // removed, and git does not know yet
	}
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o700)
	}
	if err == nil {
		err = os.WriteFile(to, text, info.Mode())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// inspect looks at what was installed below a folder.
func inspect(t *testing.T, root string) {
	t.Helper()
	program := filepath.Join(root, "usr", "bin", "isobar")
	if v := shell(t, nil, program, "version"); !strings.HasPrefix(v, "isobar "+packageVersion+" (") {
		t.Errorf("it is %s", v)
	}
	page := shell(t, nil, "gzip", "-dc", filepath.Join(root, "usr", "share", "man", "man1", "isobar.1.gz"))
	commands := regexp.MustCompile(`(?m)^  ([a-z]+)  +[A-Z]`).FindAllStringSubmatch(shell(t, nil, program, "--help"), -1)
	if len(commands) < 10 {
		t.Errorf("the program has the commands %v", commands)
	}
	for _, c := range commands {
		if !strings.Contains(page, "\n.B "+c[1]+"\n") && !strings.Contains(page, "\n.B "+c[1]+" ") {
			t.Errorf("the page does not name %s", c[1])
		}
	}
	settings := read(t, root, "etc", "isobar", "config.yaml")
	if m := regexp.MustCompile(`(?m)^[^#\n].*`).FindString(settings); m != "" {
		t.Errorf("the configuration decides %q", m)
	}
	// With every example in force, on this machine.
	settings = regexp.MustCompile(`(?m)^#( {2,}|[^ \n])`).ReplaceAllString(settings, "$1")
	settings = strings.ReplaceAll(settings, "/srv/models", t.TempDir())
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := shell(t, []string{"ISOBAR_NATS_PASSWORD=x"}, program, "config", "--config", file); strings.Count(out, file) < 8 {
		t.Errorf("few of the examples are settings:\n%s", out)
	}
	for _, unit := range []string{"isobar.service", "isobar-vault.service"} {
		if read(t, root, "usr", "lib", "systemd", "system", unit) != read(t, "systemd", unit) {
			t.Errorf("%s is another one", unit)
		}
	}
	for name, want := range map[string]fs.FileMode{"usr/bin/isobar": 0o755, "usr/bin/isobar-cuda": 0o755, "etc/isobar/isobar.env": 0o600, "etc/isobar/config.yaml": 0o644, "usr/share/doc/isobar/docs/guide/README.md": 0o644} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != want && !(name == "etc/isobar/isobar.env" && info.Mode().Perm() == 0o644) {
			t.Errorf("%s is %v", name, info.Mode())
		}
	}
}

// debian installs with dpkg, as root does, below a folder: the scripts make the user there
// and start nothing; a purge leaves nothing but the user.
func debian(t *testing.T, file string) {
	for _, name := range []string{"dpkg", "dpkg-deb"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s on this machine", name)
		}
	}
	if os.Getuid() != 0 {
		root := t.TempDir()
		shell(t, nil, "dpkg-deb", "-x", file, root)
		inspect(t, root)
		return
	}
	root := t.TempDir()
	for _, name := range []string{"etc/passwd", "etc/group", "var/lib/dpkg/status"} {
		copyFile(t, os.DevNull, filepath.Join(root, name))
	}
	dpkg := func(args ...string) {
		shell(t, nil, "dpkg", append([]string{"--root=" + root, "--force-script-chrootless", "--force-depends", "--log=" + os.DevNull}, args...)...)
	}
	dpkg("-i", file)
	inspect(t, root)
	if who := read(t, root, "etc", "passwd"); !strings.Contains(who, "isobar:") || !strings.Contains(who, "/nologin") {
		t.Errorf("the users are %q", who)
	}
	if info, err := os.Stat(filepath.Join(root, "etc/isobar/isobar.env")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("secrets are readable: %v %v", info, err)
	}
	if started, _ := filepath.Glob(filepath.Join(root, "etc/systemd/system/*/*")); len(started) > 0 {
		t.Errorf("enabled without consent: %v", started)
	}
	if err := os.MkdirAll(filepath.Join(root, "var/lib/isobar/jetstream"), 0o700); err != nil {
		t.Fatal(err)
	}
	dpkg("-i", file) // once more, over itself
	dpkg("--purge", "isobar")
	for _, name := range []string{"usr", "etc/isobar", "var/lib/isobar"} {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}

func redHat(t *testing.T, file string) {
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Skip("no rpm on this machine")
	}
	env := []string{"HOME=" + t.TempDir()}
	has := strings.Fields(shell(t, env, "rpm", "-qpl", file))
	for _, want := range []string{"/usr/bin/isobar", "/usr/bin/isobar-cuda", "/usr/lib/systemd/system/isobar.service", "/usr/lib/sysusers.d/isobar.conf", "/usr/share/man/man1/isobar.1.gz", "/etc/isobar/config.yaml"} {
		found := false
		for _, name := range has {
			found = found || name == want
		}
		if !found {
			t.Errorf("%s is not in it", want)
		}
	}
	if out := shell(t, env, "rpm", "-qp", "--configfiles", file); out != "/etc/isobar/config.yaml\n/etc/isobar/isobar.env\n" {
		t.Errorf("the configuration is %q", out)
	}
	if out := shell(t, env, "rpm", "-qp", "--queryformat", "%{VERSION} %{ARCH}", file); out != "1.2.3~rc.1 x86_64" {
		t.Errorf("it is %s", out)
	}
	if out := shell(t, env, "rpm", "-qp", "--scripts", file); !strings.Contains(out, "systemd-sysusers") || strings.Contains(out, "systemctl enable") || strings.Contains(out, "systemctl start") {
		t.Errorf("its scripts are\n%s", out)
	}
}

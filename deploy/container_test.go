package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Where buildah is to be had the image is made, of a binary built here instead of in a
// container of the toolchain, which a registry would have to give; and its program is run.
func TestTheImage(t *testing.T) {
	buildah, err := tool("buildah")
	if err != nil || os.Getuid() != 0 {
		t.Log("buildah is not here (apt-get install buildah), or this is not root: the image was not made")
		return
	}
	dir := t.TempDir()
	made := filepath.Join(dir, "made")
	for _, d := range []string{"run/isobar", "var/lib/isobar"} {
		if err := os.MkdirAll(filepath.Join(made, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X main.version=9.9.9", "-o", filepath.Join(made, "isobar"), "./cmd/node")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, last, found := strings.Cut(read(t, "container", "Containerfile"), "\nFROM scratch\n")
	if !found {
		t.Fatal("the image is made of something")
	}
	file := filepath.Join(dir, "Containerfile")
	if err := os.WriteFile(file, []byte("FROM scratch\n"+last), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		all := append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "rr"), "--storage-driver", "vfs"}, args...)
		var complaints strings.Builder
		c := exec.Command(buildah, all...)
		c.Stderr = &complaints
		out, err := c.Output()
		if err != nil {
			t.Fatalf("buildah %s: %v\n%s%s", args[0], err, out, complaints.String())
		}
		return strings.TrimSpace(string(out))
	}
	run("build", "--isolation", "chroot", "--build-context", "build="+made, "-f", file, "-t", "isobar", dir)
	container := run("from", "isobar")
	defer run("rm", container)
	if got := run("run", "--isolation", "chroot", container, "--", "/usr/bin/isobar", "version"); !strings.HasPrefix(got, "isobar 9.9.9 (") {
		t.Errorf("its program says %q", got)
	}
	// As the image's user, with its folders: it finds nothing to complain of.
	if got := run("run", "--isolation", "chroot", container, "--", "/usr/bin/isobar", "config", "--runtime-dir", "/run/isobar", "--state-dir", "/var/lib/isobar", "--json"); !strings.Contains(got, `"/run/isobar"`) {
		t.Errorf("its configuration: %s", got)
	}
}

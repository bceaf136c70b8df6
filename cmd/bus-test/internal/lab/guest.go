package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// reportMark begins the line of the guest's console that has the report.
const reportMark = "LAB-REPORT "

// guestMemory is how much of the guest's memory is not the group's, in MiB: the kernel, this
// program, and the model files, which lie in memory there.
const guestMemory = 900

// Guest does the experiment in a virtual machine: kernel is a bzImage, and this program, which
// must be linked statically, is its init.
func Guest(ctx context.Context, kernel string, o Options) (*Report, error) {
	size, err := programSize(o.Program)
	if err != nil {
		return nil, err
	}
	limit := o.Limit >> 20
	memory := limit*7/4 + guestMemory + size*2>>20
	var r *Report
	if err := boot(ctx, kernel, o, []string{"-smp", "2", "-m", fmt.Sprint(memory)}, fmt.Sprintf("%d %d", limit, o.Rounds), &r); err != nil {
		return r, err
	}
	r.Where += emulated
	return r, nil
}

// emulated is added to where a guest says that it is.
const emulated = ", QEMU under software emulation"

func programSize(program []string) (int64, error) {
	st, err := os.Stat(program[0])
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// boot runs a virtual machine of the given shape to its end, with this program as its init,
// which is called with two words, and reads the report that it prints.
func boot[T any](ctx context.Context, kernel string, o Options, shape []string, words string, report **T) error {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return errors.New("qemu-system-x86_64 is not found: apt-get install qemu-system-x86")
	}
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.ReadFile(o.Program[0])
	if err != nil {
		return err
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, archive(self), 0o600); err != nil {
		return err
	}
	args := append([]string{"-machine", "q35,accel=tcg", "-cpu", "max"}, shape...)
	cmd := exec.CommandContext(ctx, qemu, append(args, "-display", "none", "-monitor", "none",
		"-serial", "stdio", "-no-reboot", "-nic", "none", "-kernel", kernel, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 psi=1 transparent_hugepage=madvise rdinit=/init -- "+words)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	if err := cmd.Start(); err != nil {
		return err
	}
	last := console(out, o.Log, report)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", qemu, err, strings.TrimSpace(trouble.String()))
	}
	if *report == nil {
		return fmt.Errorf("the guest ended without a report; its last words: %s", last)
	}
	return nil
}

// console reads the guest's console to its end and finds the report.
func console[T any](out io.Reader, log io.Writer, report **T) (last string) {
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 0, 64<<10), 4<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if log != nil {
			fmt.Fprintln(log, line)
		}
		if _, text, ok := strings.Cut(line, reportMark); ok {
			var found T
			if err := json.Unmarshal([]byte(text), &found); err == nil {
				*report = &found
			}
		}
		if line != "" {
			last = line
		}
	}
	return last
}

// Init is the guest's first process: it makes what a machine has, does the experiment,
// prints the report, and turns the machine off.
func Init(ctx context.Context, o Options, console io.Writer) {
	live(console, func() (*Report, error) { return Run(ctx, o) })
}

// live is the life of a guest's first process.
func live[T any](console io.Writer, do func() (*T, error)) {
	err := furnish()
	var r *T
	if err == nil {
		r, err = do()
	}
	if err != nil {
		fmt.Fprintln(console, "the experiment:", err)
	}
	if r != nil {
		if text, err := json.Marshal(r); err == nil {
			fmt.Fprintf(console, "\n%s%s\n", reportMark, text)
		}
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil { // with -no-reboot QEMU ends
		fmt.Fprintln(console, "turning off:", err)
	}
}

// furnish mounts what a machine has, and brings its loopback interface up.
func furnish() error {
	for _, m := range []struct{ kind, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return loopback()
}

// loopback brings the loopback interface up.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// archive is an initial file system (cpio, "newc") with /init alone, and the folders that
// file systems are mounted on.
func archive(program []byte) []byte {
	var b bytes.Buffer
	inode := 0
	entry := func(name string, mode uint32, content []byte) {
		inode++
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		pad(&b)
		b.Write(content)
		pad(&b)
	}
	for _, dir := range []string{"proc", "sys", "dev", "tmp"} {
		entry(dir, unix.S_IFDIR|0o755, nil)
	}
	entry("init", unix.S_IFREG|0o755, program)
	entry("TRAILER!!!", 0, nil)
	return b.Bytes()
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}

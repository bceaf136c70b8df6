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
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, errors.New("qemu-system-x86_64 is not found: apt-get install qemu-system-x86")
	}
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	self, err := os.ReadFile(o.Program[0])
	if err != nil {
		return nil, err
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, archive(self), 0o600); err != nil {
		return nil, err
	}
	limit := o.Limit >> 20
	memory := limit*7/4 + guestMemory + int64(len(self))*2>>20
	cmd := exec.CommandContext(ctx, qemu, "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", fmt.Sprint(memory), "-display", "none", "-monitor", "none",
		"-serial", "stdio", "-no-reboot", "-nic", "none", "-kernel", kernel, "-initrd", initrd,
		"-append", fmt.Sprintf("console=ttyS0 quiet panic=-1 psi=1 transparent_hugepage=madvise rdinit=/init -- %d %d", limit, o.Rounds))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r, last := console(out, o.Log)
	if err := cmd.Wait(); err != nil {
		return r, fmt.Errorf("%s: %w: %s", qemu, err, strings.TrimSpace(trouble.String()))
	}
	if r == nil {
		return nil, fmt.Errorf("the guest ended without a report; its last words: %s", last)
	}
	r.Where += ", QEMU under software emulation"
	return r, nil
}

// console reads the guest's console to its end and finds the report.
func console(out io.Reader, log io.Writer) (r *Report, last string) {
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 0, 64<<10), 4<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if log != nil {
			fmt.Fprintln(log, line)
		}
		if _, text, ok := strings.Cut(line, reportMark); ok {
			var found Report
			if err := json.Unmarshal([]byte(text), &found); err == nil {
				r = &found
			}
		}
		if line != "" {
			last = line
		}
	}
	return r, last
}

// Init is the guest's first process: it makes what a machine has, does the experiment,
// prints the report, and turns the machine off.
func Init(ctx context.Context, o Options, console io.Writer) {
	r, err := guest(ctx, o)
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

func guest(ctx context.Context, o Options) (*Report, error) {
	for _, m := range []struct{ kind, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := loopback(); err != nil {
		return nil, err
	}
	return Run(ctx, o)
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

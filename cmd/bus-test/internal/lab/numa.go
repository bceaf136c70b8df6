package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isobar-project/isobar/bus/client"
	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// NUMAReport is what the experiment with two nodes came to.
type NUMAReport struct {
	Where  string
	Checks []NUMACheck
}

// NUMACheck is one thing that must hold, and what was seen.
type NUMACheck struct {
	Name, Seen string
	OK         bool
}

// Shown reports whether everything held.
func (r *NUMAReport) Shown() bool {
	for _, c := range r.Checks {
		if !c.OK {
			return false
		}
	}
	return len(r.Checks) > 0
}

// Markdown is the report's table.
func (r *NUMAReport) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\n| what must hold | seen | |\n|---|---|---|\n", r.Where)
	for _, c := range r.Checks {
		word := "holds"
		if !c.OK {
			word = "**does not hold**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", c.Name, c.Seen, word)
	}
	return b.String()
}

// The shape of the guest, in MiB, and what is asked of it.
const (
	nodeMiB    = 640
	grantMiB   = 48
	modelMiB   = 24
	foreignMiB = 400 // of node 1: with it, and what is granted there, there is no room for tooMuchMiB
	tooMuchMiB = 160

	mib = 1 << 20
)

// GuestNUMA boots a virtual machine with two NUMA nodes of a processor each, and does the
// experiment in it: see InitNUMA.
func GuestNUMA(ctx context.Context, kernel string, o Options) (*NUMAReport, error) {
	shape := []string{"-smp", "2,sockets=2,cores=1,threads=1", "-m", fmt.Sprint(2 * nodeMiB)}
	for i := range 2 {
		shape = append(shape, "-object", fmt.Sprintf("memory-backend-ram,size=%dM,id=m%d", nodeMiB, i),
			"-numa", fmt.Sprintf("node,nodeid=%d,cpus=%d,memdev=m%d", i, i, i))
	}
	var r *NUMAReport
	if err := boot(ctx, kernel, o, shape, "numa 2", &r); err != nil {
		return r, err
	}
	r.Where += emulated
	return r, nil
}

// InitNUMA is the first process of that machine. It is the node itself, with the devices that
// the default configuration finds, and its client; a foreign process takes memory of node 1.
func InitNUMA(ctx context.Context, o Options) {
	live(o.Log, func() (*NUMAReport, error) {
		ctx, cancel := context.WithTimeout(ctx, 2*roundPatience)
		defer cancel()
		x := &numaLab{ctx: ctx, o: o}
		kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
		if err != nil {
			return nil, err
		}
		x.report.Where = fmt.Sprintf("Linux %s, two NUMA nodes of %d MiB and one processor each", strings.TrimSpace(string(kernel)), nodeMiB)
		err = x.run()
		return &x.report, err
	})
}

// numaLab is the experiment under way.
type numaLab struct {
	ctx     context.Context
	o       Options
	report  NUMAReport
	bus     *client.Client
	session *data.Client
}

func (x *numaLab) check(ok bool, name, seen string, args ...any) {
	x.report.Checks = append(x.report.Checks, NUMACheck{Name: name, Seen: fmt.Sprintf(seen, args...), OK: ok})
}

func (x *numaLab) run() error {
	cfg, err := node.Defaults(node.Machine())
	if err != nil {
		return err
	}
	machine, err := memory("/proc/meminfo", "MemTotal:")
	if err != nil {
		return err
	}
	var specs []string
	var sum int64
	for _, d := range cfg.Devices {
		specs = append(specs, d.String())
		sum += d.Bytes
	}
	found := len(cfg.Devices) == 2 && cfg.Devices[0].ID == "ram-0" && cfg.Devices[1].ID == "ram-1" && cfg.Devices[0].NUMANode == 0 && cfg.Devices[1].NUMANode == 1
	x.check(found, "the default configuration is a device a node", "%s", strings.Join(specs, " "))
	x.check(sum > 0 && sum <= machine/2, "together no more than half of the machine", "%d of %d MiB", sum/mib, machine/mib)
	if !found {
		return nil
	}
	dir, err := os.MkdirTemp("", "numa")
	if err != nil {
		return err
	}
	cfg.Node, cfg.Listen, cfg.Version, cfg.HTTP = "lab", "127.0.0.1:0", "0.0.0-lab", ""
	cfg.StateDir, cfg.RuntimeDir, cfg.ModelRoots = filepath.Join(dir, "state"), filepath.Join(dir, "run"), []string{dir}
	cfg.PoolBytes, cfg.Warm, cfg.VaultOff, cfg.Ephemeral, cfg.JetStream = 0, nil, true, true, false
	cfg.Log = slog.New(slog.NewTextHandler(x.o.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.Open(x.ctx, cfg, node.Hooks{})
	if err != nil {
		return err
	}
	if x.bus, err = client.Connect(client.Options{URL: n.Info().URL}); err != nil {
		return err
	}
	defer x.bus.Close()
	if x.session, err = data.Dial(x.ctx, data.Config{SocketPath: n.Info().DataSocket, Name: "lab"}); err != nil {
		return err
	}
	defer x.session.Close()
	for _, step := range []func(string) error{x.devices, x.grants, x.model, x.transfer, x.full, x.cpuset} {
		if err := step(dir); err != nil {
			return err
		}
	}
	err = x.session.Close()
	_, stopped := n.Stop(x.ctx)
	return errors.Join(err, stopped)
}

func (x *numaLab) call(a schemas.Action, in, out any) error {
	var wait []client.CallOption
	if spec, _ := schemas.Lookup(a); spec.Changing {
		wait = append(wait, client.WithWait(time.Minute))
	}
	if err := x.bus.Call(x.ctx, a, in, out, wait...); err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	return nil
}

func (x *numaLab) devices(string) error {
	var r schemas.ListDevicesReply
	if err := x.call(schemas.ActionListDevices, &schemas.ListDevicesRequest{}, &r); err != nil {
		return err
	}
	for i, d := range r.Devices {
		x.check(d.NUMANode == i && d.Health == schemas.HealthHealthy, d.DeviceID+" says its node", "numa_node %d, %s, %s", d.NUMANode, d.Name, d.Health)
	}
	return nil
}

// grants maps a large and a small grant of each device and looks where they lie.
func (x *numaLab) grants(string) error {
	for i := range 2 {
		for _, size := range []int64{grantMiB * mib, mib} {
			var r schemas.AllocateReply
			if err := x.call(schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: fmt.Sprint("ram-", i), SizeBytes: size}, &r); err != nil {
				return err
			}
			m, err := x.session.Map(x.ctx, r.Handle.Claim, data.ReadWrite)
			if err != nil {
				return err
			}
			for _, s := range m.Segments {
				for at := 0; at < len(s.Bytes); at += 4096 {
					s.Bytes[at] = byte(i + 1)
				}
			}
			if err := x.lies(m, i, fmt.Sprintf("a grant of %d MiB of ram-%d lies on node %d", size/mib, i, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *numaLab) model(dir string) error {
	path := filepath.Join(dir, "m.safetensors")
	if err := weightstest.Sized(modelMiB*mib, 1).WriteSafetensors(path); err != nil {
		return err
	}
	for i := range 2 {
		var r schemas.LoadModelReply
		if err := x.call(schemas.ActionLoadModel, &schemas.LoadModelRequest{Name: "m", Path: path, DeviceID: fmt.Sprint("ram-", i)}, &r); err != nil {
			return err
		}
		m, err := x.session.Map(x.ctx, r.Handle.Claim, data.ReadOnly)
		if err != nil {
			return err
		}
		if err := x.lies(m, i, fmt.Sprintf("a model of %d MiB loaded to ram-%d lies on node %d", modelMiB, i, i)); err != nil {
			return err
		}
		if err := x.session.Unmap(x.ctx, m); err != nil {
			return err
		}
		if err := x.call(schemas.ActionUnloadModel, &schemas.UnloadModelRequest{Name: "m", Force: true}, nil); err != nil {
			return err
		}
	}
	return nil
}

// transfer copies a grant from one node to the other.
func (x *numaLab) transfer(string) error {
	var a schemas.AllocateReply
	if err := x.call(schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: "ram-0", SizeBytes: grantMiB * mib}, &a); err != nil {
		return err
	}
	m, err := x.session.Map(x.ctx, a.Handle.Claim, data.ReadWrite)
	if err != nil {
		return err
	}
	fill := func(at int) byte { return byte(at/4096*7 + 3) }
	for _, s := range m.Segments {
		for at := 0; at < len(s.Bytes); at += 4096 {
			s.Bytes[at] = fill(at)
		}
	}
	var t schemas.TransferReply
	if err := x.call(schemas.ActionTransfer, &schemas.TransferRequest{AllocationID: a.AllocationID, TargetDeviceID: "ram-1"}, &t); err != nil {
		return err
	}
	var h schemas.GetHandleReply
	if err := x.call(schemas.ActionGetHandle, &schemas.GetHandleRequest{AllocationID: t.AllocationID}, &h); err != nil {
		return err
	}
	to, err := x.session.Map(x.ctx, h.Handle.Claim, data.ReadWrite)
	if err != nil {
		return err
	}
	wrong := 0
	for _, s := range to.Segments {
		for at := 0; at < len(s.Bytes); at += 4096 {
			if s.Bytes[at] != fill(at) {
				wrong++
			}
		}
	}
	x.check(wrong == 0, "a transfer from ram-0 to ram-1 has the same bytes", "%d of %d pages differ", wrong, grantMiB*mib/4096)
	if err := x.lies(to, 1, "and lies on node 1"); err != nil {
		return err
	}
	if err := x.session.Unmap(x.ctx, m); err != nil {
		return err
	}
	return x.call(schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: a.AllocationID, Force: true}, nil)
}

// full has a foreign process take most of node 1: what then is too much for ram-1 is not for
// ram-0, and nobody is killed.
func (x *numaLab) full(string) error {
	end, err := x.foreign(1, foreignMiB*mib)
	if err != nil {
		return err
	}
	room, err := memory("/sys/devices/system/node/node1/meminfo", "MemFree:", "Active(file):", "Inactive(file):")
	if err != nil {
		return err
	}
	x.check(room < tooMuchMiB*mib, "a foreign process fills node 1", "%d MiB are left there", room/mib)
	none := int64(0)
	ask := func(id string) (schemas.AllocateReply, error) {
		var r schemas.AllocateReply
		err := x.call(schemas.ActionAllocate, &schemas.AllocateRequest{DeviceID: id, SizeBytes: tooMuchMiB * mib, TimeoutSeconds: &none}, &r)
		return r, err
	}
	_, err = ask("ram-1")
	var refused *schemas.Error
	x.check(errors.As(err, &refused) && refused.Code == schemas.CodeOutOfMemory, fmt.Sprintf("%d MiB of ram-1 are refused", tooMuchMiB), "%s", short(err))
	r, err := ask("ram-0")
	x.check(err == nil, fmt.Sprintf("%d MiB of ram-0 are granted", tooMuchMiB), "%s", short(err))
	if err == nil {
		if err := x.call(schemas.ActionDeallocate, &schemas.DeallocateRequest{AllocationID: r.AllocationID, Force: true}, nil); err != nil {
			return err
		}
	}
	var u schemas.GetUsageReply
	if err := x.call(schemas.ActionGetUsage, &schemas.GetUsageRequest{}, &u); err != nil {
		return err
	}
	f0, f1 := u.Devices[0].MemoryInfo.ForeignMemory, u.Devices[1].MemoryInfo.ForeignMemory
	x.check(f1 > f0, "the foreign use is seen on ram-1", "foreign: ram-0 %d MiB, ram-1 %d MiB", f0/mib, f1/mib)
	if err := end(); err != nil {
		return err
	}
	kills, err := oomKills()
	x.check(err == nil && kills == 0, "nobody was killed for want of memory", "%d OOM kills", kills)
	return err
}

// cpuset moves this process to where node 1 is not allowed: the default is one device, and a
// device that names node 1 works, degraded.
func (x *numaLab) cpuset(string) error {
	const top = "/sys/fs/cgroup"
	if err := os.WriteFile(top+"/cgroup.subtree_control", []byte("+cpuset"), 0); err != nil {
		return fmt.Errorf("cpuset: %w", err)
	}
	group := top + "/near"
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(group+"/cpuset.mems", []byte("0"), 0); err != nil {
		return err
	}
	if err := os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	cfg, err := node.Defaults(node.Machine())
	if err != nil {
		return err
	}
	x.check(len(cfg.Devices) == 1 && !cfg.Devices[0].Bound, "where a cpuset allows node 0 alone the default is one device", "%v", cfg.Devices)
	_, err = node.Load(node.Machine(), node.ScopeNode, node.Given{Flags: map[string][]string{"devices": {"ram:far@1=32MiB"}}})
	x.check(err != nil && strings.Contains(err.Error(), "node 1, which has no memory for this process"), "and naming node 1 is refused with the reason", "%s", short(err))
	return os.WriteFile(top+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0)
}

// lies checks that every page of a mapping is on a node, by the kernel's numa_maps.
func (x *numaLab) lies(m *data.Mapping, want int, name string) error {
	on := map[int]int64{}
	var all int64
	for _, s := range m.Segments {
		all += int64(len(s.Bytes))
		if err := nodesOf(s.Bytes, on); err != nil {
			return err
		}
	}
	x.check(len(on) == 1 && on[want] >= all, name, "pages of node 0: %d MiB, of node 1: %d MiB", on[0]/mib, on[1]/mib)
	return nil
}

// foreign starts a process that takes memory on a processor of a node, and waits until it
// has; end ends it.
func (x *numaLab) foreign(cpu int, bytes int64) (end func() error, err error) {
	cmd := exec.CommandContext(x.ctx, x.o.Program[0], "lab-grow", strconv.FormatInt(bytes, 10), strconv.FormatInt(4<<30, 10))
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(cmd, cpu); err != nil {
		return nil, err
	}
	if _, err := said.Read(make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("the foreign process: %w", errors.Join(err, cmd.Wait()))
	}
	return func() error { return errors.Join(hold.Close(), cmd.Wait()) }, nil
}

// startOn starts a process on one processor: its memory comes from that one's node first.
func startOn(cmd *exec.Cmd, cpu int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// memory sums lines of a file such as /proc/meminfo, in bytes.
func memory(path string, names ...string) (sum int64, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		_, rest, found := strings.Cut(string(text), name)
		words := strings.Fields(rest)
		if !found || len(words) == 0 {
			return 0, fmt.Errorf("%s has no %s", path, name)
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += n << 10
	}
	return sum, nil
}

func oomKills() (int64, error) {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), "\noom_kill ")
	if !found {
		return 0, errors.New("/proc/vmstat counts no kills")
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseInt(strings.TrimSpace(line), 10, 64)
}

// nodesOf counts the bytes of the mapping that begins at b by node. It reads a byte of each
// page: the kernel counts those that this process has touched.
func nodesOf(b []byte, on map[int]int64) error {
	var sum byte
	for at := 0; at < len(b); at += 4096 {
		sum += b[at]
	}
	runtime.KeepAlive(sum)
	text, err := os.ReadFile("/proc/self/numa_maps")
	if err != nil {
		return err
	}
	return countNodes(string(text), fmt.Sprintf("%p", b), on)
}

// countNodes reads the line of numa_maps whose mapping has an address.
func countNodes(text, address string, on map[int]int64) error {
	want, err := strconv.ParseUint(strings.TrimPrefix(address, "0x"), 16, 64)
	if err != nil {
		return err
	}
	found, best := "", uint64(0)
	for line := range strings.Lines(text) {
		first, rest, _ := strings.Cut(line, " ")
		if start, err := strconv.ParseUint(first, 16, 64); err == nil && start <= want && start >= best {
			found, best = rest, start
		}
	}
	if found == "" {
		return fmt.Errorf("no mapping of %s in numa_maps", address)
	}
	for _, word := range strings.Fields(found) {
		name, count, ok := strings.Cut(word, "=")
		if !ok || !strings.HasPrefix(name, "N") {
			continue
		}
		id, err := strconv.Atoi(name[1:])
		pages, errCount := strconv.ParseInt(count, 10, 64)
		if err != nil || errCount != nil {
			return fmt.Errorf("strange word %q in numa_maps", word)
		}
		on[id] += pages * 4096
	}
	return nil
}

// short is an error's text on a line of a table.
func short(err error) string {
	if err == nil {
		return "done"
	}
	return strings.ReplaceAll(strings.ReplaceAll(err.Error(), "\n", " "), "|", "/")
}

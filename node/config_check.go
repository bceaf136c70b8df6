package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/isobar-project/isobar/telemetry"
)

// maxSocketPath is what the kernel takes as the path of a unix socket, in bytes.
const maxSocketPath = 107

func hostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT: write it as 127.0.0.1:4222", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: the port is a number from 0 (any free one) to 65535", s)
	}
	return nil
}

// finish fills in what follows from several settings, and checks what concerns
// more than one of them or the machine. What could not be read is reported already, and
// not complained about again.
func (l *loader) finish(scope Scope) {
	bad := map[string]bool{}
	for _, p := range l.problems {
		bad[p.Key] = true
	}
	check := func(key string, in Scope, f func(c *Config) (text, fix string)) {
		if scope&in == 0 || bad[key] {
			return
		}
		if text, fix := f(&l.cfg); text != "" {
			l.problem(key, l.cfg.origins[key], text, fix)
			bad[key] = true
		}
	}
	check("runtime_dir", ScopeNode|ScopeVault, l.checkRuntimeDir)
	check("listen", ScopeNode, l.checkListen)
	check("http", ScopeNode, checkHTTP)
	check("nats_credentials", ScopeNode|ScopeClient, func(c *Config) (string, string) { return l.checkSecretFile(c.NATSCredentials) })
	check("nats_nkey", ScopeNode|ScopeClient, func(c *Config) (string, string) { return l.checkSecretFile(c.NATSNKey) })
	check("nats_password", ScopeNode|ScopeClient, l.checkPassword)
	check("tenants", ScopeNode, l.checkTenants)
	for key, file := range map[string]string{"tls_cert": l.cfg.TLSCert, "tls_ca": l.cfg.TLSCA} {
		check(key, ScopeNode|ScopeClient, func(*Config) (string, string) { return l.checkFile(file) })
	}
	check("tls_key", ScopeNode|ScopeClient, func(c *Config) (string, string) { return l.checkSecretFile(c.TLSKey) })
	check("nats_server_config", ScopeNode, l.checkServerConfig)
	check("devices", ScopeNode, l.checkDevices)
	check("model_roots", ScopeNode, l.checkModelRoots)
	check("sample_shortest", ScopeNode, func(c *Config) (string, string) {
		if c.SampleShortest > c.SampleRest {
			return fmt.Sprintf("%s is longer than sample_rest, %s", c.SampleShortest, c.SampleRest), "swap them"
		}
		return "", ""
	})
	check("events_bytes", ScopeNode, func(c *Config) (string, string) {
		if c.JetStream && c.NATSURL == "" && c.EventsBytes > c.JetStreamBytes {
			return fmt.Sprintf("%s is more than jetstream_bytes, %s, in which they are kept", ExactSize(c.EventsBytes), ExactSize(c.JetStreamBytes)),
				"lower one or raise the other"
		}
		return "", ""
	})
	if !bad["pressure_moderate"] && !bad["pressure_high"] && !bad["pressure_critical"] {
		check("pressure_high", ScopeNode, func(c *Config) (string, string) {
			if err := c.Thresholds.Validate(); err != nil {
				return "the levels do not rise: " + err.Error(), "correct pressure_moderate, pressure_high and pressure_critical"
			}
			return "", ""
		})
	}
}

func (l *loader) checkRuntimeDir(c *Config) (text, fix string) {
	if c.RuntimeDir == "" {
		return "is empty", "name a folder"
	}
	if longest := len(c.VaultSocket()); longest > maxSocketPath {
		return fmt.Sprintf("the path of a socket in it would be %d bytes long, and the kernel takes %d", longest, maxSocketPath),
			"choose a shorter one, such as --runtime-dir " + l.world.privateTemp()
	}
	info, err := l.world.Stat(c.RuntimeDir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "" // it is made at the start, private
	}
	if err != nil {
		return fmt.Sprintf("cannot be looked at: %v", err), "choose another with --runtime-dir"
	}
	if !info.IsDir() {
		return fmt.Sprintf("%s is not a folder", c.RuntimeDir), "remove it or choose another with --runtime-dir"
	}
	if uid, ok := owner(info); ok && uid != l.world.UID {
		return fmt.Sprintf("%s belongs to the user with id %d, who could read every grant", c.RuntimeDir, uid), "choose a folder of your own with --runtime-dir"
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Sprintf("%s can be written to by others, who could replace its sockets", c.RuntimeDir), "chmod go-w " + c.RuntimeDir
	}
	return "", ""
}

func (l *loader) checkListen(c *Config) (text, fix string) {
	if c.NATSURL != "" {
		return "", ""
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", ""
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return "", ""
	}
	if c.NATSUsername != "" || c.NATSServerConfig != "" || len(c.Tenants) > 0 || c.TLSVerify {
		return "", ""
	}
	return fmt.Sprintf("%s is not a loopback address, and everybody who reaches it could command the node", c.Listen),
		"set tenants, or nats_username and nats_password (or nats_server_config with accounts, or tls_verify), or listen on 127.0.0.1"
}

func checkHTTP(c *Config) (text, fix string) {
	if c.HTTP == "" || c.HTTPRemote || telemetry.Loopback(c.HTTP) {
		return "", ""
	}
	return fmt.Sprintf("%s is not a loopback address, and figures are shown to whoever asks", c.HTTP),
		"listen on 127.0.0.1, or set http_remote where a firewall or proxy decides who may ask"
}

// checkPassword wants both or none of name and password; the name alone goes with an nkey.
// A file that has the password must be private.
func (l *loader) checkPassword(c *Config) (text, fix string) {
	switch {
	case c.NATSPassword != "" && c.NATSNKey != "":
		return "is set beside nats_nkey", "set one of them"
	case c.NATSPassword != "" && c.NATSUsername == "":
		return "is set without nats_username", "set both"
	case c.NATSPassword == "" && c.NATSUsername != "" && c.NATSNKey == "":
		return "is missing beside nats_username", "set ISOBAR_NATS_PASSWORD, or nats_password in a private file"
	case c.origins["nats_password"].Source == SourceFile:
		if info, err := l.world.Stat(c.file); err == nil {
			return tooOpen(c.file, info)
		}
	}
	return "", ""
}

func (l *loader) checkServerConfig(c *Config) (text, fix string) {
	if c.NATSServerConfig != "" && c.NATSURL != "" {
		return "is for the embedded server, and nats_url uses another one", "remove one of the two"
	}
	return l.checkFile(c.NATSServerConfig)
}

func (l *loader) checkFile(path string) (text, fix string) {
	if path == "" {
		return "", ""
	}
	info, err := l.world.Stat(path)
	switch {
	case err != nil:
		return fmt.Sprintf("%s: %v", path, cause(err)), "correct the path or the permissions"
	case info.IsDir():
		return path + " is a folder", "name a file"
	}
	return "", ""
}

// checkSecretFile is checkFile for what nobody else may read.
func (l *loader) checkSecretFile(path string) (text, fix string) {
	if text, fix := l.checkFile(path); text != "" || path == "" {
		return text, fix
	}
	info, err := l.world.Stat(path)
	if err != nil {
		return fmt.Sprintf("%s: %v", path, cause(err)), "correct the path or the permissions"
	}
	return tooOpen(path, info)
}

// tooOpen says what is wrong with the permissions of a file that holds a secret. Its group may
// read it: that is how a service's account is given a key that root owns.
func tooOpen(path string, info fs.FileInfo) (text, fix string) {
	switch mode := info.Mode().Perm(); {
	case mode&0o007 != 0:
		return fmt.Sprintf("%s holds a secret, and every user of this machine may open it (mode %04o)", path, mode), "chmod o-rwx " + path
	case mode&0o020 != 0:
		return fmt.Sprintf("%s holds a secret, and its group may change it (mode %04o)", path, mode), "chmod g-w " + path
	}
	return "", ""
}

func (l *loader) checkModelRoots(c *Config) (text, fix string) {
	for _, dir := range c.ModelRoots {
		info, err := l.world.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Sprintf("there is no folder %s", dir), "make it (mkdir -p " + dir + ") or correct --model-root"
		case err != nil:
			return fmt.Sprintf("%s: %v", dir, cause(err)), "correct its permissions or --model-root"
		case !info.IsDir():
			return fmt.Sprintf("%s is not a folder", dir), "name the folder that holds it: --model-root " + filepath.Dir(dir)
		}
	}
	return "", ""
}

// checkDevices fills in the sizes that were left out, and demands that names differ
// and that main memory is not promised twice.
func (l *loader) checkDevices(c *Config) (text, fix string) {
	if c.namesGPU() && !slices.ContainsFunc(c.Devices, func(d DeviceSpec) bool { return d.Kind != DeviceCUDA }) {
		if text, fix := l.addMainMemory(c); text != "" {
			return text, fix
		}
	}
	if len(c.Devices) == 0 {
		return "there is none", "give at least one: --device ram:ram-0"
	}
	seen := map[string]bool{}
	for _, d := range c.Devices {
		if seen[d.ID] {
			return fmt.Sprintf("two devices have the id %s", d.ID), fmt.Sprintf("rename one, for example %s:%s-1", d.Kind, strings.TrimSuffix(d.ID, "-0"))
		}
		seen[d.ID] = true
	}
	for _, id := range c.ForgetDevices {
		if seen[id] {
			return fmt.Sprintf("%s is configured and to be forgotten", id), "remove it from one of --device and --forget-device"
		}
	}
	if text, fix = l.checkNodes(c); text != "" {
		return text, fix
	}
	return l.checkMainMemory(c)
}

// addMainMemory has the devices of main memory that are there by default, beside the GPUs that
// were named: models that leave a GPU go there.
func (l *loader) addMainMemory(c *Config) (text, fix string) {
	texts, _, err := defaultDevices(l.world, c)
	if err != nil {
		return err.Error(), "say how much it may be: --device ram:ram-0=4GiB"
	}
	var ram []DeviceSpec
	for _, s := range texts {
		d, err := ParseDevice(s)
		if err != nil {
			return err.Error(), ""
		}
		ram = append(ram, d)
	}
	c.Devices = append(ram, c.Devices...)
	return "", ""
}

func (l *loader) checkMainMemory(c *Config) (text, fix string) {
	var stated int64
	open := []*DeviceSpec{}
	for i := range c.Devices {
		switch d := &c.Devices[i]; {
		case d.Kind == DeviceRAM && d.Bytes == 0:
			open = append(open, d)
		case d.Kind == DeviceRAM:
			stated += d.Bytes
		}
	}
	if stated == 0 && len(open) == 0 {
		return "", ""
	}
	f, err := l.world.Memory()
	if err != nil {
		if len(open) > 0 {
			return fmt.Sprintf("%s has no size, and %v: %v", open[0].ID, errNoMemoryFigures, err), "give it one: --device ram:" + open[0].ID + "=4GiB"
		}
		return "", "" // sizes were given; the driver will see
	}
	physical := f.PhysicalBytes()
	if stated > physical {
		return fmt.Sprintf("%s of main memory is more than the %s that the machine and its control group have", HumanSize(stated), HumanSize(physical)),
			fmt.Sprintf("ask for less, such as --device ram:ram-0=%s", ExactSize(roundDown(physical/2)))
	}
	if len(open) == 0 {
		return "", ""
	}
	each := roundDown((physical/2 - stated) / int64(len(open)))
	if each < MinDeviceBytes {
		return fmt.Sprintf("half of the %s that the machine and its control group have leaves too little for %s", HumanSize(physical), open[0].ID),
			"give it a size of at least " + ExactSize(MinDeviceBytes) + ": --device ram:" + open[0].ID + "=SIZE"
	}
	for _, d := range open {
		d.Bytes = each
		if n, ok := l.node(d); ok {
			d.Bytes = min(each, roundDown(n.TotalBytes/2))
		}
	}
	return "", ""
}

func roundDown(n int64) int64 { return max(0, n-n%deviceQuantum) }

// cause is an error without the path, which the message has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

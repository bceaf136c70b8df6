package node

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// gpuNames remembers which GPU was which device, in a file beside the sockets, for as long as the
// machine runs. What the vault holds is of a device by its id; numbers of GPUs are those that a
// process sees, and others with another CUDA_VISIBLE_DEVICES or after one has fallen off the bus:
// memory of one GPU must not be taken for that of another.
type gpuNames struct{ path string }

func (c *Config) gpuNames() gpuNames { return gpuNames{filepath.Join(c.RuntimeDir, "gpus.json")} }

// gpuRecord is what is in the file.
type gpuRecord struct {
	Boot string            `json:"boot"`
	GPUs map[string]string `json:"gpus"` // id of a device → UUID
}

// machineBoot names the time since the machine was started; "" where it has no name.
func machineBoot() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// known are the devices by id, with their GPU's UUID; none where nothing is remembered, or is
// of another start of the machine.
func (n gpuNames) known() map[string]string {
	var r gpuRecord
	text, err := os.ReadFile(n.path)
	if err != nil || json.Unmarshal(text, &r) != nil || r.Boot != machineBoot() {
		return nil
	}
	return r.GPUs
}

// keep remembers more of them.
func (n gpuNames) keep(more map[string]string) error {
	all := n.known()
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, more)
	text, err := json.Marshal(gpuRecord{Boot: machineBoot(), GPUs: all})
	if err != nil {
		return err
	}
	next := n.path + ".new"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, n.path)
}

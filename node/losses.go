package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/isobar-project/isobar/device"
)

// ExitLost is the code with which a node ends so that its successor has a lost device again.
const ExitLost = 75

// A device that is lost to this process may be well for the next. The process ends for it, but
// not without end: after the maxLosses-th loss within lossWindow the device stays lost, and the
// others are served.
const (
	maxLosses  = 3
	lossWindow = 10 * time.Minute
)

// lossLog remembers losses of devices across processes, in a file beside the sockets: it is
// gone after the machine has started anew.
type lossLog struct{ path string }

func (n *Node) losses() lossLog {
	return lossLog{filepath.Join(n.cfg.RuntimeDir, "device-losses.json")}
}

// note remembers a loss and says how many of the device there were lately, this one included.
func (l lossLog) note(id string, now time.Time) (int, error) {
	all := map[string][]time.Time{}
	text, err := os.ReadFile(l.path)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("the record of lost devices: %w", err)
	}
	for name, times := range all {
		all[name] = slices.DeleteFunc(times, func(t time.Time) bool { return now.Sub(t) > lossWindow || t.After(now) })
	}
	all[id] = append(all[id], now)
	if text, err = json.Marshal(all); err != nil {
		return 0, err
	}
	next := l.path + ".new"
	if err = os.WriteFile(next, text, 0o600); err == nil {
		err = os.Rename(next, l.path)
	}
	if err != nil {
		return 0, fmt.Errorf("the record of lost devices: %w", err)
	}
	return len(all[id]), nil
}

// deviceLost decides what follows from the loss of a device. Where only this process has lost
// it, the process ends: every grant, model and mapping of every device is in the vault, and the
// next node takes all of them over with a new context. A device that is gone for good, or is
// lost again and again, is left behind instead. It runs on a goroutine of its own.
func (n *Node) deviceLost(id string, why error) {
	if !errors.Is(why, device.ErrContext) || n.cfg.VaultOff {
		return
	}
	count, err := n.losses().note(id, n.clock.Wall())
	switch {
	case err != nil:
		n.log.Error("a device stays lost: it cannot be known how often the node has ended for it", "device", id, "error", err)
		return
	case count >= maxLosses:
		n.log.Error("a device stays lost: the node has ended for it before, and that was of no use", "device", id, "losses", count, "within", lossWindow,
			"fix", "nvidia-smi --gpu-reset, or restart the machine; then restart the node")
		return
	}
	n.log.Error("the node ends, so that the next one has the device again: all that was granted is in the vault, and is taken over", "device", id, "losses", count,
		"exit_code", ExitLost, "error", why)
	// What is to be told of it leaves first, but is not waited for longer than a client would.
	n.clock.AfterFunc(2*time.Second, func() { n.exit(ExitLost) })
	n.bus.Close(time.Second)
	n.exit(ExitLost)
}

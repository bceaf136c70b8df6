package node

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/schemas"
)

// lateDriver is what has come late when it was the driver with all GPUs.
const lateDriver = ""

// A driver that could not be had at the start is looked for again, since whoever names GPUs has
// them: after lateFirst, and then at twice the pause each time, up to lateLast.
const (
	lateFirst = 5 * time.Second
	lateLast  = 5 * time.Minute
)

// late is what of the GPUs has come up after the node had begun without it. This process goes on
// without: the actors are made for the devices that there are at the start. The next one has it, and
// takes over what is granted. The zero value needs ends.
type late struct {
	mu    sync.Mutex
	ids   []string // of devices, or lateDriver
	hear  func(ids []string)
	ends  chan struct{} // closed when nobody is interested any more
	ended bool
}

// came notes that a device, or the driver, is there now.
func (l *late) came(id string) {
	l.mu.Lock()
	if !slices.Contains(l.ids, id) {
		l.ids = append(l.ids, id)
	}
	ids, hear := slices.Clone(l.ids), l.hear
	l.mu.Unlock()
	if hear != nil {
		hear(ids)
	}
}

// tell has hear called with what has come, now and whenever more does.
func (l *late) tell(hear func(ids []string)) {
	l.mu.Lock()
	l.hear = hear
	ids := slices.Clone(l.ids)
	l.mu.Unlock()
	if len(ids) > 0 {
		hear(ids)
	}
}

func (l *late) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended, l.hear = true, nil
		close(l.ends)
	}
}

// lookOut looks for a driver that was not to be had again and again, until it is there and has a
// GPU. It ends with the node.
func (l *late) lookOut(look func() (device.Runtime, []device.GPU, error), c clock.Clock) {
	for pause := lateFirst; ; pause = min(2*pause, lateLast) {
		due := make(chan struct{})
		timer := c.AfterFunc(pause, func() { close(due) })
		select {
		case <-due:
		case <-l.ends:
			timer.Stop()
			return
		}
		runtime, gpus, err := look()
		if runtime != nil {
			_ = runtime.Close() // not for this process
		}
		if err == nil && len(gpus) > 0 {
			l.came(lateDriver)
			return
		}
	}
}

// reportLateGPUs says that a restart would bring GPUs.
func (n *Node) reportLateGPUs(ids []string) {
	what := "the GPUs' driver"
	if !slices.Contains(ids, lateDriver) {
		what = strings.Join(ids, ", ")
	}
	fix := "restart the node: who maps memory keeps it, the next node takes over all that is granted, and has the GPUs"
	if n.cfg.VaultOff {
		fix = "restart the node when nothing is granted that is needed: without a vault nothing survives that"
	}
	n.board.Say(sourceLate, schemas.HealthWarning{Code: schemas.WarnGPUReady,
		Text: fmt.Sprintf("%s came up after the node had started without: this process does not use what comes late", what), Fix: fix})
}

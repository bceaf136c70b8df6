package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/isobar-project/isobar/cmd/bus-test/internal/embedded"
	"github.com/isobar-project/isobar/cmd/bus-test/internal/measure"
)

// idleLine is what a node at rest takes. It has a node of its own, with the default warm
// pool, which serves some commands, then rests while the other lines are measured: its own
// memory and time are not theirs. The window begins when it has rested for a minute.
type idleLine struct {
	w             *world
	n             *embedded.Node
	vault         int
	rested        time.Time
	before, after [2]measure.Process // node, vault
	window        time.Duration
}

func (l *idleLine) open(ctx context.Context, w *world) (err error) {
	l.w = w
	if l.n, err = w.node(ctx, "idle", embedded.Spec{Settings: map[string][]string{"devices": {"ram:ram-0=2GiB"}}}); err != nil {
		return err
	}
	nc, err := w.dial(l.n.URL)
	if err != nil {
		return err
	}
	p := &pairLine{w: &world{device: "ram-0"}, named: true, owners: 1, size: mib, run: "idle", nc: nc}
	if _, _, err := measure.Run(8, w.count(2000, 50), p.pair); err != nil {
		return err
	}
	nc.Close()
	if l.vault = l.n.VaultPid(); l.vault == 0 {
		return fmt.Errorf("the vault of %s is not found", l.n.Dir())
	}
	l.rested = time.Now()
	return nil
}

// slice is where the others' time is used: nothing to do.
func (l *idleLine) slice(context.Context, int) error { return nil }

func (l *idleLine) look() (out [2]measure.Process, err error) {
	for i, pid := range []int{l.n.Pid(), l.vault} {
		if out[i], err = measure.ProcessOf(pid); err != nil {
			return out, err
		}
	}
	return out, nil
}

// watch waits for the rest of the minute and measures over the window.
func (l *idleLine) watch() error {
	rest, window := time.Minute, 30*time.Second
	if l.w.opts.Quick {
		rest, window = time.Second, time.Second
	}
	if left := rest - time.Since(l.rested); left > 0 {
		l.w.say("resting for %s", left.Round(time.Second))
		if err := l.w.wait(left); err != nil {
			return err
		}
	}
	var err error
	if l.before, err = l.look(); err != nil {
		return err
	}
	l.w.say("watching an idle node for %s", window)
	begun := time.Now()
	if err := l.w.wait(window); err != nil {
		return err
	}
	l.after, err = l.look()
	l.window = time.Since(begun)
	return err
}

func (l *idleLine) report(r *Report) {
	if err := l.watch(); err != nil {
		for _, k := range []string{keyIdleNode, keyIdleVault, keyIdleCPU} {
			r.absent(k, err.Error())
		}
		return
	}
	r.set(keyIdleNode, float64(l.after[0].RSSAnonBytes)/mib)
	r.set(keyIdleVault, float64(l.after[1].RSSAnonBytes)/mib)
	used := l.after[0].CPU - l.before[0].CPU + l.after[1].CPU - l.before[1].CPU
	r.set(keyIdleCPU, 100*used.Seconds()/l.window.Seconds())
	r.Raw["idle_window_seconds"] = round(l.window.Seconds())
}

func (l *idleLine) close() {}

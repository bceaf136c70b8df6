package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/vault"
)

// keeper is the node's hold on its vault. It remembers what the vault must hold, so that
// a vault that died is replaced by one that holds the same.
type keeper struct {
	keeperConfig
	ctx  context.Context
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	at   vault.Keeper
	next chan struct{} // closed when another vault took the place of at, or none could
	none bool          // at is lost, and there was no other at the last try
	// others run at: see keeperConfig.apart. Known while it lives only.
	others bool
	held   map[uint64]vault.Entry
}

// keeperConfig is what a keeper needs of the node.
type keeperConfig struct {
	// connect takes a vault; with spawn it starts one where none runs.
	connect func(ctx context.Context, spawn bool) (vault.Keeper, []vault.Entry, error)
	// apart reports whether a vault's process is not of this node's making: its service
	// manager starts it again, and one that the node starts itself would stand in its way and
	// end with the node's unit.
	apart  func(pid int) bool
	health func(why string) // is told whether a vault holds what must survive: "" if so
	clock  clock.Clock
	log    *slog.Logger
}

const (
	// restartOfOthers is how long a vault that somebody else runs may take to come back
	// before the node starts one: systemd waits a second, a kubelet longer if it dies often.
	restartOfOthers = 5 * time.Second
	// lookAgain is the pause between two looks for it, and the first one after a failure,
	// which doubles up to longestPause.
	lookAgain    = 100 * time.Millisecond
	longestPause = 30 * time.Second
)

// openKeeper takes the vault and returns what it held.
func openKeeper(ctx context.Context, c keeperConfig) (*keeper, []vault.Entry, error) {
	at, entries, err := c.connect(ctx, true)
	if err != nil {
		return nil, nil, err
	}
	k := &keeper{keeperConfig: c, at: at, next: make(chan struct{}), held: map[uint64]vault.Entry{}, done: make(chan struct{}), others: c.apart(pidOf(at))}
	k.ctx, k.stop = context.WithCancel(context.Background())
	for _, e := range entries {
		k.held[e.ID] = e
	}
	go k.watch()
	return k, entries, nil
}

// Put implements actors.Keeper. While a dead vault is being replaced it waits for the
// next one; where none can be had it fails at once.
func (k *keeper) Put(entries ...vault.Entry) error {
	for {
		k.mu.Lock()
		at, next, none := k.at, k.next, k.none
		k.mu.Unlock()
		err := at.Put(entries...)
		switch {
		case err == nil && k.keep(at, entries):
			return nil
		case err == nil:
			continue // replaced meanwhile, by one that was not given these
		case none, !errors.Is(err, vault.ErrLost):
			return err
		}
		<-next
		k.mu.Lock()
		given := k.at != at
		k.mu.Unlock()
		if !given {
			return err
		}
	}
}

// keep notes what a vault was given; false if it is not the present one any more.
func (k *keeper) keep(at vault.Keeper, entries []vault.Entry) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at != at {
		return false
	}
	for _, e := range entries {
		k.held[e.ID] = e
	}
	return true
}

// Drop implements actors.Keeper.
func (k *keeper) Drop(ids ...uint64) error {
	k.mu.Lock()
	at := k.at
	for _, id := range ids {
		delete(k.held, id)
	}
	k.mu.Unlock()
	return at.Drop(ids...)
}

// watch replaces a vault that died.
func (k *keeper) watch() {
	defer close(k.done)
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		close(k.next)
	}()
	for {
		k.mu.Lock()
		at, others := k.at, k.others
		k.mu.Unlock()
		select {
		case <-k.ctx.Done():
			return
		case <-at.Lost():
		}
		if k.ctx.Err() != nil {
			return
		}
		k.log.Error("the vault died", "fix", "look into the vault's log, and whether the kernel killed it for want of memory")
		if !k.restore(others) {
			return
		}
	}
}

// restore tries until there is a vault again that holds everything; false if the node ends
// before. What is granted goes on meanwhile; nothing new that needs a segment can be granted.
func (k *keeper) restore(others bool) bool {
	if others {
		k.health("the vault died, and its return is awaited")
	} else {
		k.health("the vault died, and another is being started")
	}
	begun, pause := k.clock.Now(), lookAgain
	for {
		patient := others && k.clock.Now().Sub(begun) < restartOfOthers
		err := k.replace(!patient)
		switch {
		case k.ctx.Err() != nil:
			return false
		case err == nil:
			k.health("")
			return true
		case !patient:
			k.health("there is no vault, and none can be started: " + err.Error())
			k.log.Error("no vault can be started: nothing new survives this node until there is one", "error", err, "again", pause)
			k.giveUp()
			pause = min(2*pause, longestPause)
		}
		if !k.wait(pause) {
			return false
		}
	}
}

// giveUp fails who waits for another vault, and who comes until there is one.
func (k *keeper) giveUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.none = true
	close(k.next)
	k.next = make(chan struct{})
}

// wait reports whether the time passed before the node's end.
func (k *keeper) wait(d time.Duration) bool {
	passed := make(chan struct{})
	t := k.clock.AfterFunc(d, func() { close(passed) })
	defer t.Stop()
	select {
	case <-passed:
		return true
	case <-k.ctx.Done():
		return false
	}
}

// replace takes another vault, and gives it what it lacks.
func (k *keeper) replace(spawn bool) error {
	at, entries, err := k.connect(k.ctx, spawn)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// A vault that only lost the connection still holds what it did.
	there := map[uint64]bool{}
	var stale []uint64
	for _, e := range entries {
		e.File.Close()
		there[e.ID] = true
		if _, ok := k.held[e.ID]; !ok {
			stale = append(stale, e.ID)
		}
	}
	var lacks []vault.Entry
	for _, e := range k.held {
		if !there[e.ID] {
			lacks = append(lacks, e)
		}
	}
	sort.Slice(lacks, func(i, j int) bool { return lacks[i].ID < lacks[j].ID })
	if err := errors.Join(at.Drop(stale...), at.Put(lacks...)); err != nil {
		at.Close(false)
		return err
	}
	k.at, k.none, k.others = at, false, k.apart(pidOf(at))
	close(k.next)
	k.next = make(chan struct{})
	k.log.Info("the vault holds everything again", "descriptors", len(k.held), "given", len(lacks))
	return nil
}

// holds reports whether a vault has everything that must survive the node. Without a vault
// by configuration nothing must.
func (k *keeper) holds() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.at.Lost():
		return false
	default:
		return true
	}
}

// pid is the present vault's process, 0 if there is none.
func (k *keeper) pid() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return pidOf(k.at)
}

func pidOf(at vault.Keeper) int {
	if p, ok := at.(interface{ PID() int }); ok {
		return p.PID()
	}
	return 0
}

// apart reports whether a process is in another control group than this one: of another unit,
// or another container. It is false where that cannot be told.
func apart(pid int) bool {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	its, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && string(its) != string(own)
}

// close gives the vault up.
func (k *keeper) close() error {
	k.stop()
	k.mu.Lock()
	at := k.at
	k.mu.Unlock()
	err := at.Close(true)
	<-k.done
	return err
}

// inherited keeps the segments of what the vault held apart from the ledger's regions.
func inherited(entries []vault.Entry) (segments map[uint64]*os.File, ledgers map[string]vault.Entry) {
	segments, ledgers = map[uint64]*os.File{}, map[string]vault.Entry{}
	for _, e := range entries {
		if e.ID < firstSegmentID {
			ledgers[e.Label] = e
			continue
		}
		segments[e.ID] = e.File
	}
	return segments, ledgers
}

// firstSegmentID is the lowest vault id that is not a region of the ledger.
const firstSegmentID = 256

package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sort"
	"sync"

	"github.com/isobar-project/isobar/vault"
)

// keeper is the node's hold on its vault. It remembers what the vault must hold, so that
// a vault that died is replaced by one that holds the same.
type keeper struct {
	connect func(context.Context) (vault.Keeper, []vault.Entry, error)
	health  func(why string) // is told whether a vault holds what must survive: "" if so
	log     *slog.Logger
	ctx     context.Context
	stop    context.CancelFunc
	done    chan struct{}

	mu   sync.Mutex
	at   vault.Keeper
	next chan struct{} // closed when another vault took the place of at, or none could
	held map[uint64]vault.Entry
}

// openKeeper takes the vault and returns what it held.
func openKeeper(ctx context.Context, connect func(context.Context) (vault.Keeper, []vault.Entry, error), health func(why string), log *slog.Logger) (*keeper, []vault.Entry, error) {
	at, entries, err := connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	k := &keeper{connect: connect, health: health, log: log, at: at, next: make(chan struct{}), held: map[uint64]vault.Entry{}, done: make(chan struct{})}
	k.ctx, k.stop = context.WithCancel(context.Background())
	for _, e := range entries {
		k.held[e.ID] = e
	}
	go k.watch()
	return k, entries, nil
}

// Put implements actors.Keeper. While a dead vault is being replaced it waits for the
// next one.
func (k *keeper) Put(entries ...vault.Entry) error {
	for {
		k.mu.Lock()
		at, next := k.at, k.next
		k.mu.Unlock()
		err := at.Put(entries...)
		switch {
		case err == nil && k.keep(at, entries):
			return nil
		case err == nil:
			continue // replaced meanwhile, by one that was not given these
		case !errors.Is(err, vault.ErrLost):
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
		at := k.at
		k.mu.Unlock()
		select {
		case <-k.ctx.Done():
			return
		case <-at.Lost():
		}
		if k.ctx.Err() != nil {
			return
		}
		k.log.Error("the vault died: starting another", "fix", "look into the vault's log, and whether the kernel killed it for want of memory")
		k.health("the vault died, and another is being started")
		err := k.replace()
		if k.ctx.Err() != nil {
			return
		}
		if err == nil {
			k.health("")
		} else {
			k.health("there is no vault, and none can be started: " + err.Error())
			// Without a vault nothing new can be granted; what is granted goes on.
			k.log.Error("no vault can be started: nothing survives this node until it is restarted", "error", err)
			return
		}
	}
}

func (k *keeper) replace() error {
	at, entries, err := k.connect(k.ctx)
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
	k.at = at
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
	if p, ok := k.at.(interface{ PID() int }); ok {
		return p.PID()
	}
	return 0
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

package node

import (
	"context"
	"fmt"
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
	log     *slog.Logger
	ctx     context.Context
	stop    context.CancelFunc
	done    chan struct{}

	mu   sync.Mutex
	at   vault.Keeper
	held map[uint64]vault.Entry
}

// openKeeper takes the vault and returns what it held.
func openKeeper(ctx context.Context, connect func(context.Context) (vault.Keeper, []vault.Entry, error), log *slog.Logger) (*keeper, []vault.Entry, error) {
	at, entries, err := connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	k := &keeper{connect: connect, log: log, at: at, held: map[uint64]vault.Entry{}, done: make(chan struct{})}
	k.ctx, k.stop = context.WithCancel(context.Background())
	for _, e := range entries {
		k.held[e.ID] = e
	}
	go k.watch()
	return k, entries, nil
}

// Put implements actors.Keeper.
func (k *keeper) Put(entries ...vault.Entry) error {
	k.mu.Lock()
	at := k.at
	k.mu.Unlock()
	if err := at.Put(entries...); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range entries {
		k.held[e.ID] = e
	}
	if k.at != at {
		return fmt.Errorf("the vault was replaced meanwhile: %w", vault.ErrLost)
	}
	return nil
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
		if err := k.replace(); err != nil {
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
	for _, e := range entries { // a vault that somebody else had filled: not ours
		e.File.Close()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []vault.Entry
	for _, e := range k.held {
		all = append(all, e)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	if err := at.Put(all...); err != nil {
		at.Close(true)
		return err
	}
	k.at = at
	k.log.Info("the vault holds everything again", "descriptors", len(all))
	return nil
}

// Lost is closed when the present vault is gone.
func (k *keeper) list() ([]vault.Stat, error) {
	k.mu.Lock()
	at := k.at
	k.mu.Unlock()
	return at.List()
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

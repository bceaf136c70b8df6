package vault

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// MaxLabelBytes bounds Entry.Label.
const MaxLabelBytes = 64

// Entry is one descriptor in the vault.
type Entry struct {
	// ID is chosen by the node and names the descriptor for as long as the vault
	// holds it. Ids below 256 are for the ledger's own memory.
	ID uint64
	// Label is for people and tools, at most MaxLabelBytes: for example
	// `ledger/sessions` or `ram-0`.
	Label string
	// File stays the caller's in Put, and is the caller's in what Connect returns.
	File *os.File
}

// Stat describes one held descriptor.
type Stat struct {
	ID    uint64
	Label string
	// Bytes is the file's size, AllocatedBytes what of it has memory behind it
	// (st_blocks); both 0 for descriptors that are no files.
	Bytes, AllocatedBytes int64
}

// Keeper is what a node needs of a vault: *Client, or Off.
type Keeper interface {
	// Put returns when the vault holds all entries, each under a new id.
	Put(entries ...Entry) error
	// Drop returns when the vault has closed its descriptors of these ids. Ids
	// that it does not hold are ignored.
	Drop(ids ...uint64) error
	// List describes what is held, in the order of ids.
	List() ([]Stat, error)
	// Lost is closed when the vault has died or dropped us, or Close was called.
	Lost() <-chan struct{}
	// Close ends the connection. With release the node gives up its hold first
	// and must not touch the memory afterwards: another node may have it at once.
	// Without, the hold lasts until the process ends.
	Close(release bool) error
}

var (
	// ErrLost says that the vault died, fell silent or dropped the connection.
	ErrLost = errors.New("connection to the vault is lost")
	// ErrFull says that the vault cannot hold more descriptors (RLIMIT_NOFILE).
	ErrFull = errors.New("the vault is full: raise its limit of open files (LimitNOFILE)")
	// ErrExists refuses an id that is held already.
	ErrExists = errors.New("the vault already holds this id")
	// ErrNoVault says that nothing listens on the socket.
	ErrNoVault = errors.New("no vault is running")
	// ErrForbidden says that the vault belongs to another user.
	ErrForbidden = errors.New("the vault belongs to another user")
	// ErrVersion says that node and vault speak different protocols.
	ErrVersion = errors.New("the vault speaks another version of the protocol")
)

// HeldError refuses a node because another one holds the vault.
type HeldError struct {
	// PID of the holder.
	PID int
	// Reason is what the vault found out about it.
	Reason string
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("another node (pid %d) holds the vault: %s; stop it first, or start with --take-over to end it", e.PID, e.Reason)
}

func checkEntries(entries []Entry) error {
	for i, e := range entries {
		if len(e.Label) > MaxLabelBytes {
			return fmt.Errorf("put %d: label of %d bytes, at most %d", e.ID, len(e.Label), MaxLabelBytes)
		}
		if e.File == nil {
			return fmt.Errorf("put %d: no file", e.ID)
		}
		for _, o := range entries[:min(i, maxBatch)] {
			if o.ID == e.ID {
				return fmt.Errorf("put %d: %w", e.ID, ErrExists)
			}
		}
	}
	return nil
}

// Off is a Keeper that keeps nothing beyond this process. It exists to measure
// what the vault costs, and for tests.
func Off() Keeper { return &off{held: map[uint64]Entry{}, lost: make(chan struct{})} }

type off struct {
	mu   sync.Mutex
	held map[uint64]Entry
	lost chan struct{}
	once sync.Once
}

func (o *off) Put(entries ...Entry) error {
	if err := checkEntries(entries); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range entries {
		if _, ok := o.held[e.ID]; ok {
			return fmt.Errorf("put %d: %w", e.ID, ErrExists)
		}
	}
	for _, e := range entries {
		o.held[e.ID] = e
	}
	return nil
}

func (o *off) Drop(ids ...uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		delete(o.held, id)
	}
	return nil
}

func (o *off) List() ([]Stat, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var t table
	for id, e := range o.held {
		t.put(id, e.Label, int(e.File.Fd()))
	}
	stats := make([]Stat, 0, len(t.slots))
	for i := range t.slots {
		stats = append(stats, t.slots[i].stat())
	}
	return stats, nil
}

func (o *off) Lost() <-chan struct{} { return o.lost }

func (o *off) Close(bool) error {
	o.once.Do(func() { close(o.lost) })
	return nil
}

func statFD(fd int) (bytes, allocated int64) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0, 0
	}
	// st_blocks counts in units of 512 bytes, whatever the block size.
	return st.Size, st.Blocks * 512
}

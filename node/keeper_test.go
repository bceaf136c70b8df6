package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isobar-project/isobar/clock"
	"github.com/isobar-project/isobar/vault"
)

// fakeVault holds descriptors until it dies.
type fakeVault struct {
	mu   sync.Mutex
	held map[uint64]bool
	lost chan struct{}
}

func newFakeVault() *fakeVault { return &fakeVault{held: map[uint64]bool{}, lost: make(chan struct{})} }

func (v *fakeVault) die() { close(v.lost) }

func (v *fakeVault) PID() int { return 1 }

func (v *fakeVault) Lost() <-chan struct{} { return v.lost }

func (v *fakeVault) List() ([]vault.Stat, error) { return nil, nil }

func (v *fakeVault) Close(bool) error { return nil }

func (v *fakeVault) Put(entries ...vault.Entry) error {
	select {
	case <-v.lost:
		return vault.ErrLost
	default:
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range entries {
		v.held[e.ID] = true
	}
	return nil
}

func (v *fakeVault) Drop(ids ...uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		delete(v.held, id)
	}
	return nil
}

func (v *fakeVault) ids() []uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []uint64
	for id := range v.held {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// try is one look for a vault, which the test answers.
type try struct {
	spawn  bool
	answer chan *fakeVault // nil: there is none
}

// keeperWorld is a keeper whose vaults, time and health are the test's.
type keeperWorld struct {
	t      *testing.T
	k      *keeper
	clock  *clock.Manual
	tries  chan try
	health chan string
}

func newKeeperWorld(t *testing.T, others bool, first *fakeVault) *keeperWorld {
	t.Helper()
	w := &keeperWorld{t: t, clock: clock.NewManual(0, time.Unix(0, 0)), tries: make(chan try), health: make(chan string, 64)}
	begun := false
	var err error
	w.k, _, err = openKeeper(t.Context(), keeperConfig{
		connect: func(ctx context.Context, spawn bool) (vault.Keeper, []vault.Entry, error) {
			if !begun {
				begun = true
				return first, nil, nil
			}
			x := try{spawn, make(chan *fakeVault)}
			select {
			case w.tries <- x:
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
			if v := <-x.answer; v != nil {
				return v, nil, nil
			}
			return nil, nil, vault.ErrNoVault
		},
		apart: func(int) bool { return others }, health: func(why string) { w.health <- why }, clock: w.clock, log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.k.close() })
	return w
}

// answer takes the next look, passing time until it comes.
func (w *keeperWorld) answer(v *fakeVault) (spawn bool) {
	w.t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; {
		select {
		case x := <-w.tries:
			x.answer <- v
			return x.spawn
		case <-time.After(time.Millisecond): // of the world's time; the keeper's passes here
			w.clock.Advance(lookAgain)
		}
		if time.Now().After(limit) {
			w.t.Fatal("nobody looks for a vault")
		}
	}
}

func (w *keeperWorld) says(part string) {
	w.t.Helper()
	select {
	case why := <-w.health:
		if !strings.Contains(why, part) || part == "" && why != "" {
			w.t.Errorf("health says %q, want %q", why, part)
		}
	case <-time.After(20 * time.Second):
		w.t.Fatalf("health does not say %q", part)
	}
}

// A vault of the node's own is replaced at once; where none can be had, what needs one is
// refused at once, and the node goes on looking until there is one that holds everything.
func TestAVaultIsLookedForUntilThereIsOne(t *testing.T) {
	first := newFakeVault()
	w := newKeeperWorld(t, false, first)
	if err := w.k.Put(vault.Entry{ID: 300}); err != nil {
		t.Fatal(err)
	}
	first.die()
	w.says("another is being started")
	waits := make(chan error, 1)
	go func() { waits <- w.k.Put(vault.Entry{ID: 301}) }()
	if !w.answer(nil) {
		t.Error("no vault is started")
	}
	w.says("there is no vault, and none can be started")
	if err := <-waits; !errors.Is(err, vault.ErrLost) {
		t.Errorf("who waits hears %v", err)
	}
	if err := w.k.Put(vault.Entry{ID: 302}); !errors.Is(err, vault.ErrLost) || w.k.holds() {
		t.Errorf("who comes hears %v", err)
	}
	w.answer(nil)
	w.says("there is no vault")
	second := newFakeVault()
	w.answer(second)
	w.says("")
	if err := w.k.Put(vault.Entry{ID: 303}); err != nil || !w.k.holds() {
		t.Error(err)
	}
	if got := second.ids(); !slices.Equal(got, []uint64{300, 303}) {
		t.Errorf("the new vault holds %v", got)
	}
}

// A vault that somebody else runs is given time to return before the node starts one, which
// would stand in its way. Requests wait meanwhile.
func TestAVaultOfOthersIsAwaited(t *testing.T) {
	first := newFakeVault()
	w := newKeeperWorld(t, true, first)
	if err := w.k.Put(vault.Entry{ID: 300}); err != nil {
		t.Fatal(err)
	}
	first.die()
	w.says("its return is awaited")
	waits := make(chan error, 1)
	go func() { waits <- w.k.Put(vault.Entry{ID: 301}) }()
	for range 3 {
		if w.answer(nil) {
			t.Error("the node starts one of its own at once")
		}
	}
	second := newFakeVault()
	if w.answer(second) {
		t.Error("the node starts one of its own")
	}
	w.says("")
	if err := <-waits; err != nil || !slices.Equal(second.ids(), []uint64{300, 301}) {
		t.Errorf("%v, the vault holds %v", err, second.ids())
	}
	second.die()
	w.says("its return is awaited")
	begun := w.clock.Now()
	for !w.answer(nil) {
	}
	if waited := w.clock.Now().Sub(begun); waited < restartOfOthers {
		t.Errorf("the node starts one after %s", waited)
	}
	w.says("none can be started")
}

// A process of the same control group is not apart, and one that is gone neither.
func TestApart(t *testing.T) {
	if apart(os.Getpid()) || apart(1<<30) {
		t.Error("this process is apart from itself, or one that is not there is")
	}
}

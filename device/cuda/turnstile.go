//go:build linux

package cuda

import "sync"

// turnstile lets work that can wait pass when work that cannot is not under way. The zero value
// is ready.
type turnstile struct {
	mu           sync.Mutex
	begun, ended uint64
	turned       chan struct{} // closed with the next end; nil: nobody waits
	waiting      int
}

func (t *turnstile) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun++
}

func (t *turnstile) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended++
	if t.turned != nil {
		close(t.turned)
		t.turned = nil
	}
}

// pass waits until as much has ended as had begun when it was called: what begins later does not
// hold it up, so that it waits no longer than for what is in line.
func (t *turnstile) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting++
	for until := t.begun; t.ended < until; {
		if t.turned == nil {
			t.turned = make(chan struct{})
		}
		turned := t.turned
		t.mu.Unlock()
		<-turned
		t.mu.Lock()
	}
	t.waiting--
}

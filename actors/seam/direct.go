//go:build !protoactor

package seam

// library is dispatch without a library: the mailbox's turn calls the receiver.
type library struct{}

func newLibrary() *library { return &library{} }

type stopped struct{}

func (*library) start(r *Ref) {
	r.box.deliver = r.receiver.Receive
	r.box.control = func(any) { r.ended() }
	r.stop = func() { r.box.pushLifecycle(stopped{}) }
}

func (*library) shutdown() {}

package bus

import (
	"github.com/isobar-project/isobar/schemas"
)

// withoutClaims copies reply data that holds a claim, without the claim: events
// are read by everybody, and a claim opens memory. Who published the command asks
// get_handle for one.
func withoutClaims(data any) any {
	switch r := data.(type) {
	case *schemas.AllocateReply:
		c := *r
		c.Handle = nil
		return &c
	case *schemas.LoadModelReply:
		c := *r
		c.Handle = nil
		return &c
	case *schemas.GetHandleReply:
		c := *r
		c.Handle = schemas.Handle{Kind: r.Handle.Kind, Node: r.Handle.Node, SizeBytes: r.Handle.SizeBytes, SegmentCount: r.Handle.SegmentCount}
		return &c
	case *schemas.GetOperationReply:
		c := *r
		c.Operation.Result = nil // it may be encoded already; the operation's id is there to ask for it
		return &c
	case *schemas.CancelOperationReply:
		c := *r
		c.Operation.Result = nil
		return &c
	case *schemas.TransferReply:
		c := *r
		c.Operation.Result = nil
		return &c
	case *schemas.GetTransferReply:
		c := *r
		c.Operation.Result = nil
		return &c
	case *schemas.CancelTransferReply:
		c := *r
		c.Operation.Result = nil
		return &c
	}
	return data
}

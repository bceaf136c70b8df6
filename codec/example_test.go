package codec_test

import (
	"fmt"
	"time"

	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

func ExampleDecodeRequest() {
	payload := []byte(`{"request_id": "r-1", "data": {"size_bytes": 1048576, "memory_type": "ram"}}`)
	req, err := codec.DecodeRequest(payload, codec.JSON, schemas.ActionAllocate)
	if err != nil {
		fmt.Println(err)
		return
	}
	allocate := req.Data.(*schemas.AllocateRequest)
	fmt.Println(req.RequestID, allocate.SizeBytes, allocate.AllocationType, *allocate.TimeoutSeconds, req.Wait)

	_, err = codec.DecodeRequest([]byte(`{"size_bytes": -1}`), codec.JSON, schemas.ActionAllocate)
	fmt.Println(err, err.Details["field"])
	// Output:
	// r-1 1048576 RAM 30 2s
	// INVALID_REQUEST: size_bytes must be greater than 0 size_bytes
}

func ExampleEncodeReply() {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	fmt.Printf("%s\n", codec.EncodeReply(nil, codec.JSON, codec.Reply{RequestID: "r-1", Timestamp: at, Node: "node-1",
		Data: schemas.ListDevicesReply{}}))
	// Output:
	// {"success":true,"request_id":"r-1","timestamp":"2026-03-04T05:06:07Z","node":"node-1","data":{"devices":[]}}
}

func ExampleDecodeReply() {
	payload := codec.EncodeReply(nil, codec.MsgPack, codec.Reply{RequestID: "r-1", Node: "node-1",
		Err: schemas.Errorf(schemas.CodeInvalidDevice, "no device gpu-7")})
	_, err := codec.DecodeReply(payload, codec.MsgPack, nil)
	fmt.Println(err)
	// Output: INVALID_DEVICE: no device gpu-7
}

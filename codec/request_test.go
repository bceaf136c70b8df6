package codec_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

// both decodes a JSON payload as it is and as MessagePack, demands that the two agree,
// and returns the first.
func both(t *testing.T, payload string, subject schemas.Action) (codec.Request, *schemas.Error) {
	t.Helper()
	req, err := codec.DecodeRequest([]byte(payload), codec.JSON, subject)
	if !json.Valid([]byte(payload)) {
		return req, err
	}
	other, otherErr := codec.DecodeRequest(codec.Append(nil, codec.MsgPack, json.RawMessage(payload)), codec.MsgPack, subject)
	if !reflect.DeepEqual(err, otherErr) {
		t.Errorf("%s: JSON says %v, MessagePack %v", payload, err, otherErr)
	}
	if !req.Chosen {
		other.RequestID = req.RequestID
	}
	if err == nil && (!reflect.DeepEqual(req, other) || req.Digest() != other.Digest()) {
		t.Errorf("%s: JSON gives %+v, MessagePack %+v", payload, req, other)
	}
	return req, err
}

func TestEnvelope(t *testing.T) {
	const long = 129
	for _, c := range []struct {
		name    string
		subject schemas.Action
		payload string
		code    schemas.Code // empty: accepted
		field   any
	}{
		{"whole", "allocate", `{"request_id":"r","action":"memory.allocate","data":{"size_bytes":1}}`, "", nil},
		{"action without prefix", "allocate", `{"action":"allocate","data":{"size_bytes":1}}`, "", nil},
		{"bare data", "allocate", `{"size_bytes":1}`, "", nil},
		{"no data", "get_status", `{"request_id":"r"}`, "", nil},
		{"null everywhere", "get_status", `{"request_id":null,"action":null,"data":null}`, "", nil},
		{"empty strings", "get_status", `{"request_id":"","action":"","data":{"device_id":""}}`, "", nil},
		{"null", "get_status", `null`, "", nil},
		{"space around", "get_status", " \n{ \"data\" : { } }\t", "", nil},
		{"escaped key", "get_status", `{"d\u0061ta":{}}`, "", nil},
		{"empty parameters in data", "get_status", `{"parameters":{}}`, "", nil},
		{"empty parameters beside data", "get_status", `{"data":{},"parameters":{}}`, "", nil},
		{"null parameters", "get_status", `{"parameters":null}`, "", nil},
		{"older action name", "model_status", `{"action":"memory.get_model_status"}`, "", nil},
		{"older subject", "get_model_status", `{"action":"model_status"}`, "", nil},
		{"command", "command", `{"action":"memory.get_status"}`, "", nil},

		{"filled parameters", "get_status", `{"parameters":{"a":1}}`, "INVALID_REQUEST", "parameters"},
		{"filled parameters beside data", "get_status", `{"data":{},"parameters":{"a":1}}`, "INVALID_REQUEST", "parameters"},
		{"other action", "allocate", `{"action":"memory.deallocate","data":{"size_bytes":1}}`, "INVALID_REQUEST", "action"},
		{"envelope before data", "allocate", `{"action":"memory.deallocate","data":{"size_bytes":-1}}`, "INVALID_REQUEST", "action"},
		{"unknown action beside subject", "allocate", `{"action":"memory.fly"}`, "INVALID_REQUEST", "action"},
		{"data beside envelope", "allocate", `{"request_id":"r","size_bytes":1}`, "INVALID_REQUEST", "size_bytes"},
		{"unknown beside envelope", "get_status", `{"data":{},"extra":1}`, "INVALID_REQUEST", "extra"},
		{"request_id is a number", "get_status", `{"request_id":7}`, "INVALID_REQUEST", "request_id"},
		{"request_id too long", "get_status", `{"request_id":"` + strings.Repeat("x", long) + `"}`, "INVALID_REQUEST", "request_id"},
		{"request_id with a newline", "get_status", `{"request_id":"a\nb"}`, "INVALID_REQUEST", "request_id"},
		{"action is a list", "get_status", `{"action":[]}`, "INVALID_REQUEST", "action"},
		{"data is a list", "get_status", `{"data":[]}`, "INVALID_REQUEST", "data"},
		{"data is a string", "get_status", `{"data":""}`, "INVALID_REQUEST", "data"},
		{"a list", "get_status", `[]`, "INVALID_REQUEST", nil},
		{"a number", "get_status", `7`, "INVALID_REQUEST", nil},
		{"not JSON", "get_status", `{"data":`, "INVALID_REQUEST", nil},
		{"two values", "get_status", `{} {}`, "INVALID_REQUEST", nil},
		{"letter case of a field", "allocate", `{"Size_Bytes":1}`, "INVALID_REQUEST", "Size_Bytes"},

		{"command without action", "command", `{"data":{}}`, "INVALID_REQUEST", "action"},
		{"command with nothing", "command", ``, "INVALID_REQUEST", "action"},
		{"command of an unknown action", "command", `{"action":"memory.fly"}`, "UNKNOWN_ACTION", nil},
		{"command of a command", "command", `{"action":"memory.command"}`, "UNKNOWN_ACTION", nil},
		{"unknown subject", "fly", `{}`, "UNKNOWN_ACTION", nil},
		{"not built, bad envelope", "optimization_recs", `{"request_id":7}`, "INVALID_REQUEST", "request_id"},
		{"pid of a reservation", "allocate", `{"size_bytes":1,"class":"reservation","pid":7}`, "", nil},
		{"pid of anything else", "allocate", `{"size_bytes":1,"pid":7}`, "INVALID_REQUEST", "pid"},
		{"bad shape before not built", "get_allocations", `{"tenant":"a","limit":-1}`, "INVALID_REQUEST", "limit"},
		{"value in capitals", "unload_model", `{"name":"m","to":"RAM"}`, "", nil},
		{"file_claim", "load_model", `{"name":"m","file_claim":"c"}`, "", nil},
		{"file_claim and path", "load_model", `{"name":"m","path":"/m","file_claim":"c"}`, "INVALID_REQUEST", "file_claim"},

		{"alias", "allocate", `{"size_bytes":1,"memory_type":"vram"}`, "", nil},
		{"alias and name", "allocate", `{"size_bytes":1,"memory_type":"vram","allocation_type":"vram"}`, "INVALID_REQUEST", "allocation_type"},
		{"empty alias and name", "allocate", `{"size_bytes":1,"memory_type":"","allocation_type":"vram"}`, "", nil},
		{"bytes and megabytes", "load_model", `{"name":"m","estimated_size_bytes":1,"estimated_size_mb":1}`, "INVALID_REQUEST", "estimated_size_bytes"},
		{"bytes and null megabytes", "load_model", `{"name":"m","estimated_size_bytes":1,"estimated_size_mb":null}`, "", nil},
		{"weights", "allocate", `{"size_bytes":1,"class":"weights"}`, "INVALID_REQUEST", "class"},
		{"wait too long", "allocate", `{"size_bytes":1,"wait_ms":600001}`, "INVALID_REQUEST", "wait_ms"},
		{"wait on a query", "get_status", `{"wait_ms":1}`, "INVALID_REQUEST", "wait_ms"},
		{"a list holds null", "renew", `{"allocation_ids":[null],"lease_seconds":1}`, "INVALID_REQUEST", "allocation_ids"},
		{"neither id", "get_handle", `{}`, "INVALID_REQUEST", "allocation_id"},
		{"both ids", "get_handle", `{"allocation_id":"a","model_name":"m"}`, "INVALID_REQUEST", "model_name"},
		{"bad threshold", "set_limits", `{"device_id":"d","thresholds":{"high":"x"}}`, "INVALID_REQUEST", "thresholds.high"},
		{"bad threshold inside", "set_limits", `{"device_id":"d","thresholds":{"high":{"enter":101}}}`, "INVALID_REQUEST", "thresholds.high.enter"},
		{"bad bare threshold", "set_limits", `{"device_id":"d","thresholds":{"high":101}}`, "INVALID_REQUEST", "thresholds.high.enter"},
		{"unknown threshold", "set_limits", `{"device_id":"d","thresholds":{"low":1}}`, "INVALID_REQUEST", "thresholds.low"},
		{"threshold without enter", "set_limits", `{"device_id":"d","thresholds":{"high":{}}}`, "INVALID_REQUEST", "thresholds.high.enter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := both(t, c.payload, c.subject)
			if req.RequestID == "" {
				t.Error("no request id to answer with")
			}
			if c.code == "" {
				if err != nil {
					t.Fatalf("%v %v", err, err.Details)
				}
				return
			}
			if err == nil {
				t.Fatalf("accepted: %+v", req.Data)
			}
			if err.Code != c.code || err.Status != c.code.Status() || err.Details["field"] != c.field {
				t.Errorf("%v %v, want %s for %v", err, err.Details, c.code, c.field)
			}
		})
	}
}

func TestNamesGivenTwiceAreRefused(t *testing.T) {
	for payload, field := range map[string]string{
		`{"size_bytes":1,"size_bytes":2}`:                       "size_bytes",
		`{"size_bytes":1,"size\u005fbytes":1}`:                  "size_bytes",
		`{"data":{"size_bytes":1},"data":{"size_bytes":2}}`:     "data",
		`{"request_id":"a","request_id":"b"}`:                   "request_id",
		`{"size_bytes":1,"wait_ms":1,"wait_ms":2}`:              "wait_ms",
		`{"data":{"size_bytes":1,"dry_run":true,"dry_run":1}}`:  "dry_run",
		`{"size_bytes":1,"purpose":null,"purpose":"x"}`:         "purpose",
		`{"action":"allocate","action":"allocate","data":null}`: "action",
	} {
		if _, err := codec.DecodeRequest([]byte(payload), codec.JSON, "allocate"); err == nil || err.Details["field"] != field {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

func TestAHandlerSeesFinalValues(t *testing.T) {
	req, err := both(t, `{"request_id":"r-1","data":{"size_bytes":7,"allocation_type":2,"class":"STATE","wait_ms":250,"dry_run":true}}`, "allocate")
	if err != nil {
		t.Fatal(err)
	}
	want := &schemas.AllocateRequest{SizeBytes: 7, AllocationType: schemas.DeviceTypeVRAM, Class: schemas.ClassState, Persistent: true,
		TimeoutSeconds: ptr(int64(30))}
	if !reflect.DeepEqual(req.Data, want) {
		t.Errorf("%+v", req.Data)
	}
	if req.RequestID != "r-1" || !req.Chosen || req.Wait != 250*time.Millisecond || !req.DryRun || req.Action != schemas.ActionAllocate {
		t.Errorf("%+v", req)
	}

	req, _ = both(t, ``, "get_status")
	status := req.Data.(*schemas.GetStatusRequest)
	if status.DeviceID != "all" || !*status.IncludeAllocations || !*status.IncludeUsageStats || *status.Limit != 100 || req.Wait != 0 || req.Chosen {
		t.Errorf("%+v %+v", status, req)
	}
	req, _ = both(t, `{"name":"m"}`, "load_model")
	load := req.Data.(*schemas.LoadModelRequest)
	if !*load.KeepWarm || *load.TimeoutSeconds != 120 || load.EstimatedSizeBytes != nil || req.Wait != 2*time.Second {
		t.Errorf("%+v %+v", load, req)
	}
	req, _ = both(t, `{"name":"m","keep_warm":false,"timeout_seconds":0,"estimated_size_mb":0.5}`, "load_model")
	load = req.Data.(*schemas.LoadModelRequest)
	if *load.KeepWarm || *load.TimeoutSeconds != 0 || *load.EstimatedSizeBytes != 1<<19 {
		t.Errorf("%+v", load)
	}
	req, _ = both(t, `{"device_id":"d","thresholds":{"moderate":70,"critical":{"enter":95,"leave":90}}}`, "set_limits")
	limits := req.Data.(*schemas.SetLimitsRequest).Thresholds
	if *limits.Moderate.Leave != 65 || *limits.Critical.Leave != 90 || limits.High != nil {
		t.Errorf("%+v", limits)
	}
	req, _ = both(t, `{"data":{"request_id":"r-1","wait_ms":9000}}`, "get_operation")
	if get := req.Data.(*schemas.GetOperationRequest); get.RequestID != "r-1" || req.Wait != 9*time.Second || req.Chosen {
		t.Errorf("%+v %+v", get, req)
	}
}

func TestSameContentHasOneDigest(t *testing.T) {
	digest := func(action schemas.Action, payload string) [32]byte {
		t.Helper()
		req, err := both(t, payload, action)
		if err != nil {
			t.Fatal(err)
		}
		return req.Digest()
	}
	base := digest("allocate", `{"size_bytes":7,"memory_type":"ram"}`)
	for _, same := range []string{
		`{"memory_type":"RAM","size_bytes":7}`, `{"allocation_type":1,"size_bytes":7}`,
		`{"request_id":"x","action":"memory.allocate","data":{"size_bytes":7,"allocation_type":"Ram","timeout_seconds":30,"class":"scratch"}}`,
		`{"size_bytes":7,"memory_type":"ram","wait_ms":9,"purpose":"","clear":false,"priority":null}`,
	} {
		if digest("allocate", same) != base {
			t.Errorf("%s is not the same", same)
		}
	}
	for _, other := range []string{
		`{"size_bytes":8,"memory_type":"ram"}`, `{"size_bytes":7}`, `{"size_bytes":7,"memory_type":"ram","timeout_seconds":31}`,
		`{"size_bytes":7,"memory_type":"ram","dry_run":true}`, `{"size_bytes":7,"memory_type":"ram","lease_seconds":1}`,
	} {
		if digest("allocate", other) == base {
			t.Errorf("%s is the same", other)
		}
	}
	if digest("cancel_operation", `{"operation_id":"o","wait_ms":5}`) != digest("cancel_operation", `{"operation_id":"o"}`) {
		t.Error("wait_ms counts")
	}
	if digest("load_model", `{"name":"m","estimated_size_mb":1}`) != digest("load_model", `{"name":"m","estimated_size_bytes":1048576}`) {
		t.Error("units count")
	}
	if digest("deallocate", `{"allocation_id":"a"}`) == digest("get_allocation", `{"allocation_id":"a"}`) {
		t.Error("the action does not count")
	}
}

func TestPayloadLimit(t *testing.T) {
	payload := []byte(`{"purpose":"` + strings.Repeat("x", schemas.MaxPayloadBytes) + `"}`)
	if _, err := codec.DecodeRequest(payload, codec.JSON, "allocate"); err == nil || err.Code != schemas.CodePayloadTooLarge || err.Status != 413 {
		t.Error(err)
	}
	padded := []byte(`{}` + strings.Repeat(" ", schemas.MaxPayloadBytes-2))
	if _, err := codec.DecodeRequest(padded, codec.JSON, "get_status"); err != nil {
		t.Error(err)
	}
}

func TestMessagesNeverEchoMuchInput(t *testing.T) {
	name := strings.Repeat("é", 10_000)
	for _, payload := range []string{
		`{"` + name + `":1}`, `{"class":"` + name + `","size_bytes":1}`, `{"data":{},"` + name + `":1}`,
	} {
		_, err := codec.DecodeRequest([]byte(payload), codec.JSON, "allocate")
		if err == nil || len(err.Message) > 400 || len(fmt.Sprint(err.Details)) > 200 {
			t.Errorf("%d bytes of message", len(err.Message))
		}
	}
}

// TestHostilePayloadsCostNoMoreThanTheirSize feeds what kills other decoders.
func TestHostilePayloadsCostNoMoreThanTheirSize(t *testing.T) {
	repeat := func(b byte, n int) []byte { return []byte(strings.Repeat(string(rune(b)), n)) }
	nested := func(open byte) []byte {
		b := make([]byte, 200_000)
		for i := range b {
			b[i] = open
		}
		return b
	}
	hostile := map[string]struct {
		f codec.Format
		b []byte
	}{
		"array of 2^32-1":       {codec.MsgPack, []byte{0xdd, 0xff, 0xff, 0xff, 0xff}},
		"map of 2^32-1":         {codec.MsgPack, []byte{0xdf, 0xff, 0xff, 0xff, 0xff}},
		"string of 2^32-1":      {codec.MsgPack, []byte{0xdb, 0xff, 0xff, 0xff, 0xff}},
		"binary of 2^32-1":      {codec.MsgPack, []byte{0xc6, 0xff, 0xff, 0xff, 0xff}},
		"extension of 2^32-1":   {codec.MsgPack, []byte{0xc9, 0xff, 0xff, 0xff, 0xff, 1}},
		"nested arrays":         {codec.MsgPack, nested(0x91)},
		"nested maps":           {codec.MsgPack, nested(0x81)},
		"nested in a field":     {codec.MsgPack, append([]byte{0x81, 0xa1, 'x'}, nested(0x91)...)},
		"reserved code":         {codec.MsgPack, []byte{0xc1}},
		"number as a key":       {codec.MsgPack, []byte{0x81, 1, 1}},
		"trailing byte":         {codec.MsgPack, []byte{0x80, 0xc0}},
		"cut off":               {codec.MsgPack, []byte{0x81, 0xa4, 'd', 'a'}},
		"key that is not UTF-8": {codec.MsgPack, []byte{0x81, 0xa1, 0xff, 1}},
		"deep lists":            {codec.JSON, repeat('[', 200_000)},
		"deep objects":          {codec.JSON, []byte(strings.Repeat(`{"a":`, 50_000))},
		"deep in a field":       {codec.JSON, []byte(`{"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`)},
		"many empty strings":    {codec.JSON, []byte(`{"allocation_ids":[` + strings.Repeat(`"a",`, 60_000) + `"a"],"lease_seconds":1}`)},
		"many members":          {codec.JSON, []byte(`{` + strings.Repeat(`"a":1,`, 40_000) + `"a":1}`)},
		"a long number":         {codec.JSON, []byte(`{"size_bytes":` + strings.Repeat("9", 200_000) + `}`)},
		"not UTF-8":             {codec.JSON, []byte("{\"purpose\":\"\xff\"}")},
		"half a character":      {codec.JSON, []byte(`{"purpose":"\ud800"}`)},
	}
	for name, h := range hostile {
		for _, action := range []schemas.Action{"renew", "allocate", "get_status"} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := codec.DecodeRequest(h.b, h.f, action)
			runtime.ReadMemStats(&after)
			if err == nil || err.Code != schemas.CodeInvalidRequest {
				t.Errorf("%s: %v", name, err)
			}
			if cost := after.TotalAlloc - before.TotalAlloc; cost > 2<<20 {
				t.Errorf("%s: %d bytes were allocated for %d", name, cost, len(h.b))
			}
		}
	}
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		contentType, accept string
		in, out             codec.Format
		bad                 bool
	}{
		{"", "", codec.JSON, codec.JSON, false},
		{"application/json", "application/msgpack", codec.JSON, codec.MsgPack, false},
		{"application/msgpack", "", codec.MsgPack, codec.MsgPack, false},
		{"Application/JSON; charset=utf-8", "", codec.JSON, codec.JSON, false},
		{"application/msgpack", "*/*", codec.MsgPack, codec.MsgPack, false},
		{"", "text/html, application/msgpack;q=0.9", codec.JSON, codec.MsgPack, false},
		{"application/msgpack", "text/html", codec.MsgPack, codec.MsgPack, true},
		{"text/plain", "", codec.JSON, codec.JSON, true},
	} {
		in, out, err := codec.Negotiate(c.contentType, c.accept)
		if in != c.in || out != c.out || (err != nil) != c.bad || err != nil && err.Code != schemas.CodeUnsupportedMediaType {
			t.Errorf("%q, %q: %v, %v, %v", c.contentType, c.accept, in, out, err)
		}
		if _, back, _ := codec.Negotiate(out.ContentType(), ""); back != out {
			t.Errorf("%v is not its own content type", out)
		}
	}
}

func TestRepliesInBothFormats(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.FixedZone("", 3600))
	for _, f := range []codec.Format{codec.JSON, codec.MsgPack} {
		sent := allocateReply()
		payload := codec.EncodeReply(nil, f, codec.Reply{RequestID: "r", Timestamp: at, Node: "n", Data: sent})
		var got schemas.AllocateReply
		head, err := codec.DecodeReply(payload, f, &got)
		if err != nil {
			t.Fatal(f, err)
		}
		if !head.Success || head.RequestID != "r" || head.Node != "n" || !head.Timestamp.Equal(at) {
			t.Errorf("%v: %+v", f, head)
		}
		sent.Evicted, sent.Allocation.MappedBy = []schemas.Eviction{}, []schemas.Mapper{} // nil is written as []
		if a, b := codec.Append(nil, codec.JSON, sent), codec.Append(nil, codec.JSON, &got); string(a) != string(b) {
			t.Errorf("%v: sent %s\ngot %s", f, a, b)
		}

		failure := schemas.Errorf(schemas.CodeOutOfMemory, "short").With("shortfall_bytes", int64(7)).
			With("holders", []schemas.Holder{{Owner: "a", Bytes: 3}})
		payload = codec.EncodeReply(nil, f, codec.Reply{RequestID: "r", Timestamp: at, Node: "n", Err: failure})
		_, err = codec.DecodeReply(payload, f, nil)
		var e *schemas.Error
		if !errors.As(err, &e) || e.Code != failure.Code || e.Status != 503 || e.Message != "short" || fmt.Sprint(e.Details["shortfall_bytes"]) != "7" {
			t.Errorf("%v: %v", f, err)
		}
		for _, junk := range [][]byte{nil, []byte("x"), codec.Append(nil, f, 7), codec.Append(nil, f, map[string]any{}), {0xdd, 0xff, 0xff, 0xff, 0xff}} {
			if _, err := codec.DecodeReply(junk, f, nil); err == nil || errors.As(err, &e) {
				t.Errorf("%v: %q is a reply: %v", f, junk, err)
			}
		}
	}
}

func TestKeptAnswersAreWrittenInEitherFormat(t *testing.T) {
	kept := codec.Append(nil, codec.JSON, allocateReply())
	var fromJSON, fromMsgPack any
	whole := codec.EncodeReply(nil, codec.JSON, codec.Reply{Data: json.RawMessage(kept)})
	if err := json.Unmarshal(whole, &fromJSON); err != nil {
		t.Fatal(err)
	}
	whole = codec.EncodeReply(nil, codec.MsgPack, codec.Reply{Data: json.RawMessage(kept)})
	if err := codec.Guard(whole); err != nil {
		t.Fatal(err)
	}
	if err := msgpack.Unmarshal(whole, &fromMsgPack); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(fromJSON, plainNumbers(fromMsgPack)) {
		t.Errorf("%v\n%v", fromJSON, fromMsgPack)
	}
	if got := codec.Append(nil, codec.JSON, json.RawMessage(`{"a":`)); string(got) != "null" {
		t.Errorf("%s", got)
	}
}

func TestEncodeRequestRefusesWhatIsNoObject(t *testing.T) {
	for _, data := range []any{7, "x", []int{1}, time.Now()} {
		if _, err := codec.EncodeRequest(nil, codec.JSON, codec.Call{Data: data}); err == nil {
			t.Errorf("%v is an object", data)
		}
	}
	for _, f := range []codec.Format{codec.JSON, codec.MsgPack} {
		for _, data := range []any{&schemas.AllocateRequest{SizeBytes: 7}, schemas.AllocateRequest{SizeBytes: 7}, map[string]any{"size_bytes": 7}} {
			b, err := codec.EncodeRequest(nil, f, codec.Call{RequestID: "r", Action: "allocate", Data: data, Wait: ptr(time.Second), DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			req, bad := codec.DecodeRequest(b, f, schemas.ActionCommand)
			if bad != nil {
				t.Fatal(bad)
			}
			if req.RequestID != "r" || req.Wait != time.Second || !req.DryRun || req.Data.(*schemas.AllocateRequest).SizeBytes != 7 {
				t.Errorf("%+v", req)
			}
		}
	}
}

// plainNumbers turns every number of a decoded value into a float64.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			v[key] = plainNumbers(inner)
		}
	case []any:
		for i := range v {
			v[i] = plainNumbers(v[i])
		}
	default:
		if rv := reflect.ValueOf(v); rv.IsValid() {
			switch {
			case rv.CanInt():
				return float64(rv.Int())
			case rv.CanUint():
				return float64(rv.Uint())
			}
		}
	}
	return v
}

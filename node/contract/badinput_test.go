package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/node/nodetest"
	"github.com/isobar-project/isobar/schemas"
)

// sound is a request for each action that is refused at most because what it names is not
// there; bad requests are made from it.
var sound = map[string]obj{
	"get_status": {}, "get_usage": {}, "get_allocations": {}, "list_devices": {}, "get_queue": {}, "get_pressure": {}, "model_status": {},
	"get_model_info":   {},
	"get_allocation":   {"allocation_id": nobody},
	"allocate":         {"device_id": "gpu-0", "size_bytes": 2 * mib},
	"deallocate":       {"allocation_id": nobody},
	"get_handle":       {"allocation_id": nobody},
	"renew":            {"allocation_ids": []any{nobody}, "lease_seconds": 10},
	"get_operation":    {"operation_id": nobody},
	"cancel_operation": {"operation_id": nobody},
	"set_limits":       {"device_id": "gpu-0"},
	"load_model":       {"name": "none"},
	"unload_model":     {"name": "none"},
	"acquire_model":    {"name": "none", "lease_seconds": 10},
	"release_model":    {"reference_id": nobody},
	"model_optimize":   {}, "optimize": {"device_id": "gpu-0", "optimization_type": "models"}, "cleanup": {"confirm": true}, "analytics": {},
	"clear":             {"allocation_id": nobody},
	"copy":              {"source_allocation_id": nobody, "target_allocation_id": nobody},
	"transfer":          {"allocation_id": nobody, "target_device_id": "gpu-0"},
	"get_transfer":      {"transfer_id": nobody},
	"cancel_transfer":   {"transfer_id": nobody},
	"defragment":        {"device_id": "gpu-0"},
	"optimization_recs": {},
}

const nobody = "00000000-0000-8000-8000-000000000000"

// unknown is what each answers to a thing that is not there.
var unknown = map[string]string{
	"get_allocation": "ALLOCATION_NOT_FOUND", "deallocate": "ALLOCATION_NOT_FOUND", "get_handle": "ALLOCATION_NOT_FOUND", "renew": "ALLOCATION_NOT_FOUND",
	"get_operation": "OPERATION_NOT_FOUND", "cancel_operation": "OPERATION_NOT_FOUND", "load_model": "MODEL_NOT_FOUND", "unload_model": "MODEL_NOT_FOUND",
	"acquire_model": "MODEL_NOT_FOUND", "release_model": "MODEL_NOT_FOUND",
	"clear": "ALLOCATION_NOT_FOUND", "copy": "ALLOCATION_NOT_FOUND", "transfer": "ALLOCATION_NOT_FOUND",
	"get_transfer": "TRANSFER_NOT_FOUND", "cancel_transfer": "TRANSFER_NOT_FOUND",
}

// footprint is what a node must not grow by.
type footprint struct {
	used, granted, models, queue int64
	goroutines, descriptors      int
}

func (c *caller) footprint() footprint {
	c.t.Helper()
	s := c.do("get_status", obj{"device_id": "gpu-0"})
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		c.t.Fatal(err)
	}
	return footprint{num(s, "memory_info.used_memory"), num(s, "usage_stats.allocation_count"), num(s, "usage_stats.model_count"),
		num(s, "usage_stats.queue_length"), runtime.NumGoroutine(), len(fds)}
}

// unharmed waits, call by call, until the node is as it was.
func (c *caller) unharmed(before footprint) {
	c.t.Helper()
	var now footprint
	for range 5000 {
		now = c.footprint()
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors {
			now.goroutines, now.descriptors = before.goroutines, before.descriptors
		}
		if now == before {
			return
		}
		runtime.Gosched()
	}
	c.t.Errorf("before %+v, now %+v", before, now)
}

// alone runs a test in each format with nothing beside it, as it counts what is there.
func alone(t *testing.T, run func(*caller), options ...nodetest.Option) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			c := start(t, f, options...)
			for action, in := range sound { // every pool and cache has what it needs
				if action != "allocate" {
					c.ask(action, in)
				}
			}
			c.release(c.grant(2 * mib))
			before := c.footprint()
			run(c)
			c.unharmed(before)
		})
	}
}

func with(in obj, name string, v any) obj {
	out := obj{}
	for k, x := range in {
		out[k] = x
	}
	if out[name] = v; v == nil {
		delete(out, name)
	}
	return out
}

func TestBadFields(t *testing.T) {
	alone(t, func(c *caller) {
		for _, spec := range schemas.All() {
			action := string(spec.Action)
			in, ok := sound[action]
			if !ok {
				t.Errorf("%s has no sound request here", action)
				continue
			}
			if code := unknown[action]; code != "" {
				c.fails(code, action, in)
			}
			c.want(c.fails("INVALID_REQUEST", action, with(in, "colour", "red")), "field", "colour")
			for _, f := range reflect.VisibleFields(spec.Request) {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if strings.Contains(f.Tag.Get("check"), "required") {
					if d := c.fails("INVALID_REQUEST", action, with(in, name, nil)); text(d, "field") != name {
						c.t.Errorf("%s without %s: details %v", action, name, d)
					}
				}
				for what, v := range wrong(f.Type) {
					d := c.fails("INVALID_REQUEST", action, with(in, name, v))
					if !strings.HasPrefix(text(d, "field"), name) {
						c.t.Errorf("%s, %s: %s: details %v", action, name, what, d)
					}
				}
			}
			if spec.Changing {
				for _, v := range []any{-1, "soon", 601_000, 1.5, []any{}} {
					if _, own := in["wait_ms"]; !own {
						c.want(c.fails("INVALID_REQUEST", action, with(in, "wait_ms", v)), "field", "wait_ms")
					}
				}
				c.want(c.fails("INVALID_REQUEST", action, with(in, "dry_run", "yes")), "field", "dry_run")
			}
			if _, has := spec.Request.FieldByName("DeviceID"); has && action != "renew" && action != "get_handle" && action != "release_model" && action != "clear" {
				code := "INVALID_DEVICE"
				c.fails(code, action, with(in, "device_id", "gpu-99"))
			}
		}
	})
}

// wrong are values that no field of a type takes.
func wrong(t reflect.Type) map[string]any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	w := map[string]any{"a list of lists": []any{[]any{}}}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		w["text"], w["a fraction"], w["an object"], w["a boolean"] = "many", 1.5, obj{"a": 1}, true
		w["beyond int64"], w["far below"], w["huge"] = uint64(1)<<63, int64(-1)<<63, 1e300
	case reflect.String:
		w["an object"], w["a control character"], w["too long"] = obj{"a": 1}, "a\x00b", strings.Repeat("x", 100_000)
		if t == reflect.TypeFor[string]() {
			w["a number"] = 12
		} else {
			w["no such word"] = "violet"
		}
	case reflect.Bool:
		w["text"], w["a number"] = "true", 1
	case reflect.Slice:
		w["text"], w["numbers"] = "x", []any{1, 2}
	case reflect.Struct:
		w["text"], w["an unknown field"] = "x", obj{"colour": "red"}
	}
	return w
}

func TestBadPayloads(t *testing.T) {
	alone(t, func(c *caller) {
		deep := func(open, end string, n int) []byte {
			return []byte(strings.Repeat(open, n) + strings.Repeat(end, n))
		}
		bad := map[string][]byte{
			"not an object": []byte(`[1,2]`), "half": []byte(`{"data":{"device_id":`), "garbage": {0xc1, 0xff, 0x00, 0x9f}, "twice": []byte(`{"data":{}}{}`),
			"a number": []byte(`7`), "the same key twice": []byte(`{"request_id":"a","request_id":"b","data":{}}`),
			"deep lists": deep(`[`, `]`, 50_000), "deep objects": append([]byte(`{"data":`), append(deep(`{"a":`, `}`, 20_000), '}')...),
			"an envelope with more": []byte(`{"data":{},"colour":"red"}`), "no UTF-8": []byte("{\"data\":{\"device_id\":\"\xff\xfe\"}}"),
			"a long request_id": []byte(`{"request_id":"` + strings.Repeat("x", 129) + `","data":{}}`), "a number for request_id": []byte(`{"request_id":1,"data":{}}`),
		}
		if c.f.name == "msgpack" {
			bad = map[string][]byte{
				"garbage": {0xc1, 0xff}, "a map of 2^32-1": {0xdf, 0xff, 0xff, 0xff, 0xff}, "a list of 2^32-1": {0xdd, 0xff, 0xff, 0xff, 0xff},
				"text of 4 GiB": {0xdb, 0xff, 0xff, 0xff, 0xff, 'a'}, "bytes of 4 GiB": {0xc6, 0xff, 0xff, 0xff, 0xff}, "half a map": {0x82, 0xa1, 'a'},
				"an extension": {0x81, 0xa4, 'd', 'a', 't', 'a', 0xc7, 0x04, 0x01, 1, 2, 3, 4}, "keys that are numbers": {0x81, 0x01, 0x02},
				"deep lists": bytes.Repeat([]byte{0x91}, 100_000), "deep maps": bytes.Repeat([]byte{0x81, 0xa1, 'a'}, 50_000),
				"twice": {0x80, 0x80}, "a number": {0x07}, "not a number": {0x81, 0xaa, 's', 'i', 'z', 'e', '_', 'b', 'y', 't', 'e', 's', 0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1},
			}
		}
		for action := range sound {
			for what, b := range bad {
				c.refused("INVALID_REQUEST", action+": "+what, c.raw("memory."+action, b))
			}
			c.refused("PAYLOAD_TOO_LARGE", action, c.raw("memory."+action, bytes.Repeat([]byte(" "), 256<<10+1)))
		}
		c.refused("INVALID_REQUEST", "memory.command", c.raw("memory.command", bad["garbage"]))
		// What names no format of ours is answered in the one that is the default.
		odd := *c
		odd.f = format{"json", "application/xml", json.Marshal, decodeJSON}
		odd.refused("UNSUPPORTED_MEDIA_TYPE", "xml", odd.raw("memory.allocate", []byte("<a/>")))
		// Bad data is no reason to forget whose it was.
		a := c.ask("allocate", obj{"size_bytes": "many"}, id("mine"))
		c.refused("INVALID_REQUEST", "allocate", a)
	})
}

// Sizes that add up to more than can be counted are refused, and nothing is granted.
func TestHugeSizes(t *testing.T) {
	alone(t, func(c *caller) {
		for _, n := range []any{int64(1)<<62 + 1, int64(1<<63 - 1), int64(1<<63 - 4096)} {
			c.want(c.fails("INVALID_REQUEST", "allocate", obj{"device_id": "gpu-0", "size_bytes": n}), "field", "size_bytes")
		}
		for _, n := range []any{int64(1) << 60, int64(1)<<60 - 1, int64(1) << 40, 1<<30 + 1} {
			for _, class := range []string{"scratch", "state", "reservation"} {
				c.fails("OUT_OF_MEMORY", "allocate", obj{"device_id": "gpu-0", "size_bytes": n, "class": class, "alignment": 2 * mib, "wait_ms": 0})
			}
		}
		for _, n := range []any{0, -1, -1 << 62} {
			c.want(c.fails("INVALID_REQUEST", "allocate", obj{"device_id": "gpu-0", "size_bytes": n}), "field", "size_bytes")
		}
		for _, f := range []string{"lease_seconds", "timeout_seconds"} {
			c.want(c.fails("INVALID_REQUEST", "allocate", obj{"device_id": "gpu-0", "size_bytes": 1, f: int64(1<<63 - 1)}), "field", f)
		}
		if d := c.fails("INVALID_REQUEST", "set_limits", obj{"device_id": "gpu-0", "model_limit_mb": 1e300}); !strings.HasPrefix(text(d, "field"), "model_limit_") {
			c.t.Errorf("details %v", d)
		}
	})
}

// A file that is cut short, or changed, under a load ends that load, and only that.
func TestModelFileChangesWhileItIsLoaded(t *testing.T) {
	for what, change := range map[string]func(path string) error{
		"truncated": func(path string) error { return os.Truncate(path, 9*mib) },
		"emptied":   func(path string) error { return os.Truncate(path, 0) },
		"rewritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("other"), 20*mib)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			alone(t, func(c *caller) {
				path := c.hollow("m", 32)
				p := c.do("load_model", obj{"name": "m", "path": path, "wait_ms": 0})
				c.await("load_progress", "model", nil)
				if err := change(path); err != nil {
					c.t.Fatal(err)
				}
				op := c.do("get_operation", obj{"operation_id": text(p, "operation_id"), "wait_ms": 20_000})
				code := text(op, "operation.error.error_code")
				if text(op, "operation.status") != "failed" || code != "FILE_NOT_READABLE" && code != "INVALID_MODEL" {
					c.t.Errorf("%v", op)
				}
				c.want(c.await("load_failed", "model", of("name", "m")).data, "error_code", code)
			}, nodetest.Set(func(cfg *node.Config) {
				cfg.Devices = []node.DeviceSpec{{Kind: node.DeviceSim, ID: "gpu-0", Bytes: 1 << 30, BandwidthBytesPerSecond: 64 * mib}}
			}))
		})
	}
}

// A device that fails at a load or a grant fails that, and nothing stays behind.
func TestDeviceFaults(t *testing.T) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			d := gpu(t, "gpu-0")
			c := start(t, f, drivers(d))
			path := c.hollow("m", 8)
			c.release(c.grant(2 * mib))
			before := c.footprint()
			for n := range 3 {
				d.Faults().FailCopy(1, fmt.Errorf("the link is down"))
				a := c.ask("load_model", obj{"name": "m", "path": path, "wait_ms": 10_000})
				if a.ok || a.status < 500 {
					t.Errorf("attempt %d: %+v", n, a)
				}
				c.unharmed(before)
			}
			c.do("load_model", obj{"name": "m", "path": path, "wait_ms": 10_000})
			c.do("unload_model", obj{"name": "m"})
			c.unharmed(before)
		})
	}
}

package contract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	data "github.com/isobar-project/isobar/dataplane/client"
	"github.com/isobar-project/isobar/device"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/weights/weightstest"
)

// beyondTheRoots writes a model where the node may not look by itself.
func beyondTheRoots(t testing.TB, s weightstest.Spec) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := s.WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	return opened(t, path, os.O_RDONLY)
}

func opened(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (c *caller) offer(d *data.Client, name string, f *os.File) string {
	c.t.Helper()
	claim, err := d.Offer(t0(c.t), name, f)
	if err != nil {
		c.t.Fatal(err)
	}
	return claim
}

// refusesOffer offers what must be refused.
func (c *caller) refusesOffer(d *data.Client, name string, f *os.File, code schemas.Code, says string) {
	c.t.Helper()
	claim, err := d.Offer(t0(c.t), name, f)
	if !errors.Is(err, schemas.Errorf(code, "")) || claim != "" || !strings.Contains(err.Error(), says) {
		c.t.Errorf("%s: %q, %v", name, claim, err)
	}
}

func TestAnOfferedFileIsLoaded(t *testing.T) {
	inBoth(t, func(c *caller) {
		spec := whole(8, 5)
		f := beyondTheRoots(c.t, spec)
		c.fails("FILE_NOT_READABLE", "load_model", obj{"name": "m", "path": f.Name()}) // only the client may
		d := c.session(nil)
		claim := c.offer(d, "mine", f)
		if err := os.Remove(f.Name()); err != nil { // the open file is enough
			c.t.Fatal(err)
		}
		c.want(c.do("load_model", obj{"name": "m", "file_claim": claim, "dry_run": true}), "plan.outcome", "granted")
		r := c.do("load_model", obj{"name": "m", "file_claim": claim, "wait_ms": 10_000}, id("the load"))
		c.want(r, "loaded", true, "source_tier", "disk", "model.size_bytes", 8*mib, "model.state", "sealed")
		if p := text(r, "model.path"); !strings.HasPrefix(p, "descriptor:mine#") {
			c.t.Errorf("path %q", p)
		}
		m := c.maps(d, r["handle"], data.ReadOnly)
		for i, tn := range spec.Tensors {
			if err := spec.Check(i, 0, m.Tensor(tn.Name)); err != nil {
				c.t.Error(err)
			}
		}
		// The claim is used; a retry of the same command is not another use.
		c.want(c.fails("STALE_HANDLE", "load_model", obj{"name": "n", "file_claim": claim}), "field", "file_claim")
		c.want(c.do("load_model", obj{"name": "m", "file_claim": claim, "wait_ms": 10_000}, id("the load")), "replayed", true)

		// The same open file again is a hit; another file of that name is a conflict.
		c.want(c.do("load_model", obj{"name": "m", "file_claim": c.offer(d, "mine", f)}), "source_tier", "vram")
		other := beyondTheRoots(c.t, whole(4, 6))
		c.fails("MODEL_CONFLICT", "load_model", obj{"name": "m", "file_claim": c.offer(d, "mine", other)})

		// Once it is gone the node has no file to load it from.
		c.unmaps(d, m)
		c.do("unload_model", obj{"name": "m", "wait_ms": 10_000})
		a := c.ask("load_model", obj{"name": "m"})
		c.refused("FILE_NOT_READABLE", "a model that came as a descriptor", a)
		if !strings.Contains(a.text, "offer it again") {
			c.t.Errorf("%q does not say what to do", a.text)
		}
		c.do("load_model", obj{"name": "m", "file_claim": c.offer(d, "mine", other), "wait_ms": 10_000})
	})
}

// A model that came as an open file is verified when that file is offered again, and otherwise by
// hashes of its tensors, for which no file is needed.
func TestAnOfferedModelIsVerified(t *testing.T) {
	inBoth(t, func(c *caller) {
		spec := whole(8, 5)
		f := beyondTheRoots(c.t, spec)
		d := c.session(nil)
		load := func(more obj) answer {
			in := obj{"name": "m", "wait_ms": 10_000}
			maps.Copy(in, more)
			return c.ask("load_model", in)
		}
		verified := func(what string, a answer) {
			c.t.Helper()
			if !a.ok || a.data["verified"] != true {
				c.t.Errorf("%s: %+v", what, a)
			}
		}
		verified("as it is loaded", load(obj{"file_claim": c.offer(d, "mine", f), "verify": true}))
		verified("offered again", load(obj{"file_claim": c.offer(d, "mine", f), "verify": true}))
		a := load(obj{"verify": true})
		c.refused("FILE_NOT_READABLE", "without a file", a)
		if !strings.Contains(a.text, "offer it again") || !strings.Contains(a.text, "hashes") {
			c.t.Errorf("%q does not say what to do", a.text)
		}
		c.refused("MODEL_CONFLICT", "another file", load(obj{"file_claim": c.offer(d, "mine", beyondTheRoots(c.t, whole(8, 6))), "verify": true}))

		m := c.maps(d, load(nil).data["handle"], data.ReadOnly)
		var sums []any
		for i, tn := range spec.Tensors {
			s := fmt.Sprintf("%x", sha256.Sum256(m.Tensor(tn.Name)))
			if i == 0 {
				s = strings.ToUpper(s)
			}
			sums = append(sums, s+"  "+tn.Name)
		}
		verified("by its hashes", load(obj{"hashes": sums}))
		verified("by one of them", load(obj{"hashes": sums[:1]}))
		verified("by both", load(obj{"hashes": sums, "file_claim": c.offer(d, "mine", f), "verify": true}))
		first := spec.Tensors[0].Name
		other := strings.Repeat("5", 64)
		a = load(obj{"hashes": []any{other + "  " + first}})
		c.refused("INVALID_MODEL", "another hash", a)
		c.want(a.detail, "tensor", first)
		a = load(obj{"hashes": []any{other + "  none"}})
		c.refused("INVALID_REQUEST", "another tensor", a)
		c.want(a.detail, "tensor", "none")
		for field, bad := range map[string][]any{
			"hashes[0]": {other[1:] + "  " + first},
			"hashes[1]": {sums[0], other[1:] + "x  x"},
			"hashes[2]": {sums[0], sums[1], sums[0]},
			"hashes[3]": {sums[0], sums[1], other + "  other", other + " one space"},
		} {
			a = load(obj{"hashes": bad})
			c.refused("INVALID_REQUEST", field, a)
			c.want(a.detail, "field", field)
		}
		c.unmaps(d, m)
	})
}

func TestOffersThatAreRefused(t *testing.T) {
	inBoth(t, func(c *caller) {
		d := c.session(nil)
		dir := c.t.TempDir()
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			c.t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			c.t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		notRegular := "not a regular file"
		c.refusesOffer(d, "a folder", opened(c.t, dir, os.O_RDONLY), schemas.CodeFileNotReadable, notRegular)
		c.refusesOffer(d, "a pipe", r, schemas.CodeFileNotReadable, notRegular)
		c.refusesOffer(d, "a device", opened(c.t, "/dev/zero", os.O_RDONLY), schemas.CodeFileNotReadable, notRegular)
		c.refusesOffer(d, "write-only", opened(c.t, path, os.O_WRONLY), schemas.CodeFileNotReadable, "not open for reading")
		c.refusesOffer(d, "a bare path", opened(c.t, path, unix.O_PATH), schemas.CodeFileNotReadable, "not open for reading")
		c.refusesOffer(d, "", opened(c.t, path, os.O_RDONLY), schemas.CodeInvalidRequest, "name")

		load := func(name string, content []byte) answer {
			return c.ask("load_model", obj{"name": name, "file_claim": c.offer(d, name, memory(c.t, content)), "wait_ms": 10_000})
		}
		c.refused("INVALID_MODEL", "garbage", load("garbage", []byte("x")))
		c.refused("INVALID_MODEL", "nothing", load("nothing", nil))
		sharded := load("sharded", []byte(`{"weight_map":{"a":"model-00001-of-00002.safetensors"}}`))
		c.refused("INVALID_MODEL", "an index", sharded)
		if !strings.Contains(sharded.text, "one descriptor") {
			c.t.Errorf("%q does not say that one file is all there is", sharded.text)
		}
		c.want(c.fails("INVALID_REQUEST", "load_model", obj{"name": "m", "path": path, "file_claim": "x"}), "field", "file_claim")
		c.want(c.do("get_model_info", obj{}), "model_count", 0)
		c.want(c.memory(), "used_memory", 0)
	})
}

// memory is a memfd with some content.
func memory(t testing.TB, content []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("offered", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "offered")
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// A claim is used by one tenant, and ends with the session that brought the file.
func TestFileClaimsOfOthers(t *testing.T) {
	tenants := func(_ *node.Config, h *node.Hooks) {
		h.Tenants = map[string]string{"default": "", "blue": "isobar.blue."}
	}
	inBoth(t, func(c *caller) {
		d := c.session(nil)
		f := beyondTheRoots(c.t, whole(4, 7))
		claim := c.offer(d, "mine", f)
		// Our user is of no tenant: the file is of the one that shows the claim, once.
		if a := c.askOn("isobar.blue.memory.load_model", obj{"name": "m", "file_claim": claim, "wait_ms": 10_000}); !a.ok {
			c.t.Fatalf("who shows the claim: %s %s", a.code, a.text)
		}
		c.refused("STALE_HANDLE", "another tenant", c.ask("load_model", obj{"name": "m", "file_claim": claim}))

		gone := c.offer(d, "mine", f)
		if err := d.Close(); err != nil {
			c.t.Fatal(err)
		}
		// End-of-file is heard by the node in its own time; until then the claim may be good.
		for deadline := t0(c.t); ; {
			if a := c.ask("load_model", obj{"name": "m", "file_claim": gone, "dry_run": true}); !a.ok {
				c.refused("STALE_HANDLE", "after the session", a)
				break
			}
			if deadline.Err() != nil {
				c.t.Fatal("the claim outlives its session")
			}
		}
	}, tenants)
}

// shrinking cuts the offered file off while it is being read.
type shrinking struct {
	device.Driver
	cut atomic.Pointer[func()] // called once
}

func (s *shrinking) Fill(ctx context.Context, seg device.Segment, off int64, f *os.File, fileOff, n int64) (int64, error) {
	if cut := s.cut.Swap(nil); cut != nil {
		(*cut)()
	}
	return s.Driver.Fill(ctx, seg, off, f, fileOff, n)
}

func TestAnOfferedFileThatShrinksWhileItIsLoaded(t *testing.T) {
	gpu := &shrinking{Driver: gpu(t, "gpu-0")}
	c := start(t, formats[0], drivers(gpu))
	var content bytes.Buffer
	spec := whole(8, 9)
	path := filepath.Join(t.TempDir(), "m")
	if err := spec.WriteSafetensors(path); err != nil {
		t.Fatal(err)
	}
	if _, err := content.ReadFrom(opened(t, path, os.O_RDONLY)); err != nil {
		t.Fatal(err)
	}
	d := c.session(nil)
	for name, size := range map[string]int64{"to nothing": 0, "by half": 4 * mib} {
		f := memory(t, content.Bytes())
		first := f
		cut := func() { first.Truncate(size) }
		gpu.cut.Store(&cut)
		a := c.ask("load_model", obj{"name": "m", "file_claim": c.offer(d, "m", f), "wait_ms": 10_000})
		c.refused("INVALID_MODEL", name, a)
		// Cut off between the offer and the load.
		f = memory(t, content.Bytes())
		claim := c.offer(d, "m", f)
		f.Truncate(size)
		c.refused("INVALID_MODEL", name+" before", c.ask("load_model", obj{"name": "m", "file_claim": claim, "wait_ms": 10_000}))
	}
	c.do("load_model", obj{"name": "m", "file_claim": c.offer(d, "m", memory(t, content.Bytes())), "wait_ms": 10_000})
}

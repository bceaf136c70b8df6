package contract

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/isobar-project/isobar/schemas"
	"github.com/isobar-project/isobar/schemas/jsonschema"
)

// reference is the folder of the generated reference.
const reference = "../../docs/reference"

// published are the schemas as they are published: every file of the reference, by its name
// without .json.
var published = sync.OnceValues(func() (map[string]*validator.Schema, error) {
	paths, err := filepath.Glob(filepath.Join(reference, "schema", "*.json"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]*validator.Schema, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		doc, err := validator.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		c := validator.NewCompiler()
		c.AssertFormat()
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		if err := c.AddResource(jsonschema.ID(name), doc); err != nil {
			return nil, err
		}
		if out[name], err = c.Compile(jsonschema.ID(name)); err != nil {
			return nil, err
		}
	}
	return out, nil
})

// valid holds a decoded value to a published schema.
func valid(t testing.TB, name string, v any) {
	t.Helper()
	all, err := published()
	if err != nil {
		t.Fatal(err)
	}
	s := all[name]
	if s == nil {
		t.Errorf("no schema %s is published", name)
		return
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("%s: %v in %v", name, err, v)
	}
}

// validReply holds a reply to the envelope's schema, and its data to the action's; an error
// must be one that the action is said to answer.
func validReply(t testing.TB, subject string, env obj) {
	t.Helper()
	valid(t, jsonschema.ReplyEnvelopeName, env)
	_, action, _, _ := schemas.SplitCommand(subject)
	spec, known := schemas.Lookup(action)
	if !known {
		return // memory.command: the envelope alone said which
	}
	if env["success"] == true {
		valid(t, jsonschema.ReplyName(spec.Action), env["data"])
		return
	}
	if code := schemas.Code(text(env, "error_code")); !slices.Contains(spec.Errors(), code) {
		t.Errorf("%s answers %s, which the reference does not say of it", spec.Action, code)
	}
}

// validEvent holds a whole message to the schema of its subject.
func validEvent(t testing.TB, subject string, env obj) {
	t.Helper()
	e, known := schemas.LookupEvent(subject)
	if !known {
		t.Errorf("%s is no subject of events", subject)
		return
	}
	valid(t, jsonschema.EventName(e), env)
}

// TestPublishedSchemas: there is one of everything, and it can refuse.
func TestPublishedSchemas(t *testing.T) {
	all, err := published()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range schemas.All() {
		for _, name := range []string{jsonschema.RequestName(s.Action), jsonschema.ReplyName(s.Action)} {
			if all[name] == nil {
				t.Errorf("no schema %s", name)
			} else if all[name].Validate(obj{"colour": "red"}) == nil {
				t.Errorf("%s takes a field that nobody knows", name)
			}
		}
	}
	for _, e := range schemas.Events() {
		if s := all[jsonschema.EventName(e)]; s == nil || s.Validate(obj{"event": string(e.Kinds[0])}) == nil {
			t.Errorf("%s: %v", e.Name, s)
		}
	}
}

// TestSoundRequestsFitTheirSchemas: what these tests send as good requests a client could
// have made from the schemas.
func TestSoundRequestsFitTheirSchemas(t *testing.T) {
	for action, in := range sound {
		in := maps.Clone(in)
		if spec, _ := schemas.Lookup(schemas.Action(action)); spec.Changing {
			in["wait_ms"] = 1
		}
		valid(t, jsonschema.RequestName(schemas.Action(action)), plain(in))
	}
}

// TestAsyncAPI: the document is sound YAML, its references lead somewhere, and every
// subject of the service is in it.
func TestAsyncAPI(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(reference, "asyncapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc obj
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if doc["asyncapi"] != "3.0.0" {
		t.Errorf("version %v", doc["asyncapi"])
	}
	refs := 0
	var walk func(v any)
	walk = func(v any) {
		switch x := v.(type) {
		case obj:
			for k, inner := range x {
				if to, ok := inner.(string); ok && k == "$ref" {
					refs++
					if !leads(doc, to) {
						t.Errorf("%s leads nowhere", to)
					}
					continue
				}
				walk(inner)
			}
		case []any:
			for _, inner := range x {
				walk(inner)
			}
		}
	}
	walk(doc)
	if refs < 300 {
		t.Errorf("only %d references", refs)
	}
	addresses := map[any]bool{}
	channels, _ := doc["channels"].(obj)
	for _, c := range channels {
		addresses[at(c, "address")] = true
	}
	want := []string{schemas.AnyCommandSubject(), schemas.NodeCommandSubject(schemas.ActionCommand, "{node}")}
	for _, s := range schemas.All() {
		for _, a := range append([]schemas.Action{s.Action}, s.Aliases...) {
			want = append(want, schemas.CommandSubject(a), schemas.NodeCommandSubject(a, "{node}"))
		}
	}
	for _, e := range schemas.Events() {
		want = append(want, e.Subject)
	}
	for _, subject := range want {
		if !addresses[subject] {
			t.Errorf("no channel for %s", subject)
		}
	}
	if operations, _ := doc["operations"].(obj); len(operations) != len(want) {
		t.Errorf("%d operations for %d subjects", len(operations), len(want))
	}
}

// leads reports whether a reference of the document is to something that is there.
func leads(doc obj, to string) bool {
	path, inside := strings.CutPrefix(to, "#/")
	if !inside {
		_, err := os.Stat(filepath.Join(reference, to))
		return err == nil
	}
	var v any = doc
	for part := range strings.SplitSeq(path, "/") {
		m, ok := v.(obj)
		if !ok {
			return false
		}
		if v, ok = m[part]; !ok {
			return false
		}
	}
	return true
}

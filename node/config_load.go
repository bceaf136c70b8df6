package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	envPrefix = "ISOBAR_"
	// ConfigEnv names the configuration file.
	ConfigEnv = envPrefix + "CONFIG"
)

// fakeVariables begin with our prefix too: they are read by the library that stands in for a
// GPU's driver in tests, package device/cuda/fake.
const fakeVariables = envPrefix + "FAKE_CUDA_"

// otherVariables begin with our prefix and are not settings.
var otherVariables = []string{
	ConfigEnv,
	"ISOBAR_VAULT_LISTENER", // vault.Spawn to the vault
	"ISOBAR_RESERVATION",    // isobar exec to its program
	"ISOBAR_RESERVATION_DEVICE",
	"ISOBAR_RESERVATION_BYTES",
	"ISOBAR_PYTHON",           // tests: the interpreter with their packages
	"ISOBAR_NFPM",             // tests: the program that makes deb and rpm
	"ISOBAR_CONFORMANCE_ROLE", // tests: the driver suite to its other process
}

// Source is where a value came from.
type Source string

// The sources; each wins over those below it.
const (
	SourceFlag    Source = "flag"
	SourceEnv     Source = "environment"
	SourceFile    Source = "file"
	SourceDefault Source = "default"
)

// Origin is where one value came from.
type Origin struct {
	Source Source `json:"source"`
	// Where is the flag, the variable, the file and line, or the reason for the default.
	Where string `json:"where"`
}

// String is the origin in a few words.
func (o Origin) String() string {
	if o.Source == SourceDefault {
		return "default: " + o.Where
	}
	return o.Where
}

// Given is what the command line says.
type Given struct {
	// File is the configuration file, "" where none was named: then ISOBAR_CONFIG, then
	// the usual places if there is one.
	File string
	// Flags are the values of flags by setting key. Only flags that were given are in it.
	Flags map[string][]string
}

// Load finds the configuration of the given scope: flags, then environment, then file,
// then defaults. It reads the file and looks at the folders that the configuration
// names; it makes and changes nothing. Its error is *ConfigError, with everything that
// is wrong at once. Settings outside the scope keep their zero value, and
// unknown names are errors in every scope.
func Load(w *World, scope Scope, g Given) (Config, error) {
	l := loader{world: w, rows: table(), cfg: Config{origins: map[string]Origin{}}}
	file := l.readFile(g.File, scope)
	env := l.readEnv()
	for i := range l.rows {
		if row := &l.rows[i]; row.Scope&scope != 0 {
			l.resolve(row, g.Flags, env, file)
		}
	}
	for key := range g.Flags {
		if _, ok := l.row(key); !ok {
			l.problem(key, Origin{Source: SourceFlag, Where: "--" + key}, "is not a setting", l.nearest(key))
		}
	}
	l.finish(scope)
	if len(l.problems) > 0 {
		return Config{}, &ConfigError{Problems: l.problems}
	}
	return l.cfg, nil
}

// Defaults is the configuration of a machine where nothing is set: neither
// variables of ours nor a file are looked at.
func Defaults(w *World) (Config, error) {
	clean := *w
	clean.Environ = slices.DeleteFunc(slices.Clone(w.Environ), func(s string) bool { return strings.HasPrefix(s, envPrefix) })
	clean.ReadFile = func(path string) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return Load(&clean, ScopeNode|ScopeVault|ScopeClient, Given{})
}

// ConfigError says everything that is wrong with a configuration.
type ConfigError struct{ Problems []Problem }

// Problem is one thing that is wrong.
type Problem struct {
	// Key is the setting's, or the unknown name; "" for the file as a whole.
	Key    string
	Origin Origin
	// Text says what is wrong, Fix what to do; Fix may be "" where Text says it.
	Text, Fix string
}

// Error is one problem a line.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// String is the problem as one sentence.
func (p Problem) String() string {
	s := p.Text
	if p.Key != "" {
		s = p.Key + ": " + s
	}
	if p.Origin.Source != SourceDefault && p.Origin.Where != "" {
		s += " (" + p.Origin.Where + ")"
	}
	if p.Fix != "" {
		s += ": " + p.Fix
	}
	return s
}

type loader struct {
	world    *World
	rows     []setting
	cfg      Config
	problems []Problem
}

// texts are the values of one setting in one source.
type texts struct {
	values []string
	where  string
}

func (l *loader) problem(key string, o Origin, text, fix string) {
	l.problems = append(l.problems, Problem{Key: key, Origin: o, Text: text, Fix: fix})
}

func (l *loader) row(key string) (*setting, bool) {
	for i := range l.rows {
		if l.rows[i].Key == key {
			return &l.rows[i], true
		}
	}
	return nil, false
}

func (l *loader) resolve(row *setting, flags map[string][]string, env, file map[string]texts) {
	if values, ok := flags[row.Key]; ok {
		l.set(row, Origin{SourceFlag, "flag --" + row.Flag}, values)
		return
	}
	if t, ok := env[row.Key]; ok {
		l.set(row, Origin{SourceEnv, t.where}, t.values)
		return
	}
	if t, ok := file[row.Key]; ok {
		l.set(row, Origin{SourceFile, t.where}, t.values)
		return
	}
	values, reason, err := row.fallback(l.world, &l.cfg)
	if err != nil {
		l.problem(row.Key, Origin{Source: SourceDefault}, "has no default here: "+err.Error(), "set --"+row.Flag+" "+row.Form)
		return
	}
	l.set(row, Origin{SourceDefault, reason}, values)
}

func (l *loader) set(row *setting, o Origin, values []string) {
	l.cfg.origins[row.Key] = o
	if err := row.set(&l.cfg, values); err != nil {
		text := err.Error()
		if row.Secret && !row.List { // of a list's items the error names no value
			text = "cannot be read"
		}
		l.problem(row.Key, o, text, "")
	}
}

// readEnv takes our variables; those that are no setting's are problems. An empty
// variable is as good as none: compose files and units cannot unset one.
func (l *loader) readEnv() map[string]texts {
	found := map[string]texts{}
	for _, entry := range l.world.Environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(otherVariables, name) || strings.HasPrefix(name, fakeVariables) {
			continue
		}
		key := strings.ToLower(strings.TrimPrefix(name, envPrefix))
		row, ok := l.row(key)
		if !ok || row.Env != name {
			l.problem(name, Origin{Source: SourceEnv, Where: "environment"}, "is not a setting", l.nearestEnv(name))
			continue
		}
		if value == "" {
			delete(found, key)
			continue
		}
		t := texts{values: []string{value}, where: "environment " + name}
		if row.List {
			t.values = splitList(value, row.Separator)
		}
		found[key] = t
	}
	return found
}

// splitList cuts a list at any of the separators and at line ends.
func splitList(s, separators string) []string {
	items := []string{}
	for item := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '\n' || strings.ContainsRune(separators, r) }) {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// readFile reads the configuration file into texts by key. A file in a usual place that
// this user may not read is the node's concern alone: clients of other users go on
// without it.
func (l *loader) readFile(named string, scope Scope) map[string]texts {
	origin := Origin{SourceFlag, "flag --config"}
	if named == "" {
		if named = l.world.env(ConfigEnv); named != "" {
			origin = Origin{SourceEnv, "environment " + ConfigEnv}
		}
	}
	files := []string{named}
	if named == "" {
		files = l.world.configFiles()
	}
	for _, path := range files {
		data, err := l.world.ReadFile(path)
		switch {
		case err == nil:
			l.cfg.file = path
			return l.parseFile(path, data)
		case named != "":
			l.problem("", origin, fmt.Sprintf("the configuration file cannot be read: %v", err), "correct its path or its permissions")
			return nil
		case errors.Is(err, fs.ErrPermission) && scope&ScopeNode == 0:
		case !errors.Is(err, fs.ErrNotExist):
			l.problem("", Origin{SourceFile, path}, fmt.Sprintf("the configuration file cannot be read: %v", err), "correct it or remove it")
		}
	}
	return nil
}

func (l *loader) parseFile(path string, data []byte) map[string]texts {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if err == io.EOF {
		return nil // empty: nothing is set
	}
	if err == nil && !errors.Is(dec.Decode(&more), io.EOF) {
		err = errors.New("it has more than one document")
	}
	if err != nil {
		l.problem("", Origin{SourceFile, path}, fmt.Sprintf("the configuration file is not sound YAML: %v", err), "correct it")
		return nil
	}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		l.problem("", Origin{SourceFile, path}, "the configuration file is not a mapping of settings", "write one `name: value` a line")
		return nil
	}
	found := map[string]texts{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		l.parseEntry(path, root.Content[i], root.Content[i+1], found)
	}
	return found
}

func (l *loader) parseEntry(path string, key, value *yaml.Node, found map[string]texts) {
	origin := Origin{SourceFile, fmt.Sprintf("%s:%d", path, key.Line)}
	row, ok := l.row(key.Value)
	if _, twice := found[key.Value]; twice {
		l.problem(key.Value, origin, "is set twice", "remove one")
		return
	}
	if !ok || key.Kind != yaml.ScalarNode {
		l.problem(key.Value, origin, "is not a setting", l.nearest(key.Value))
		return
	}
	values, err := yamlTexts(row, value)
	switch {
	case err != nil:
		l.problem(row.Key, origin, err.Error(), "")
	case values != nil:
		found[row.Key] = texts{values: values, where: origin.Where}
	}
}

// yamlTexts are the texts of a node: nil for null.
func yamlTexts(row *setting, n *yaml.Node) ([]string, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return yamlTexts(row, n.Alias)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, nil
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	case n.Kind == yaml.MappingNode && row.Key == "tenants":
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, fmt.Errorf("is not a tenant: %w", err)
		}
		b, err := json.Marshal(v)
		return []string{string(b)}, err
	case n.Kind == yaml.MappingNode && row.Key == "devices":
		s, err := yamlDevice(n)
		return []string{s}, err
	case n.Kind != yaml.SequenceNode || !row.List:
		if row.List {
			return nil, fmt.Errorf("is neither a value nor a sequence of values")
		}
		return nil, fmt.Errorf("is not a single value")
	}
	values := []string{}
	for _, item := range n.Content {
		if item.Kind == yaml.SequenceNode {
			return nil, fmt.Errorf("is a sequence in a sequence")
		}
		v, err := yamlTexts(row, item)
		if err != nil {
			return nil, err
		}
		values = append(values, v...)
	}
	return values, nil
}

// yamlDevice turns {kind, id, numa_node, size, bandwidth, latency} into the form of the flag.
func yamlDevice(n *yaml.Node) (string, error) {
	parts := map[string]string{}
	names := []string{"kind", "id", "numa_node", "size", "bandwidth", "latency"}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if !slices.Contains(names, k.Value) || v.Kind != yaml.ScalarNode {
			return "", fmt.Errorf("a device has the fields %s, not %q", strings.Join(names, ", "), k.Value)
		}
		if strings.ContainsAny(v.Value, ",=:@") {
			return "", fmt.Errorf("the device's %s cannot be %q", k.Value, v.Value)
		}
		parts[k.Value] = v.Value
	}
	s := parts["kind"] + ":" + parts["id"]
	if v, ok := parts["numa_node"]; ok {
		s += "@" + v
	}
	if v, ok := parts["size"]; ok {
		s += "=" + v
	}
	for _, name := range names[4:] {
		if v, ok := parts[name]; ok {
			s += "," + name + "=" + v
		}
	}
	return s, nil
}

package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// hiddenSecret stands for a secret that is set.
const hiddenSecret = "***"

// Explained is one setting in force.
type Explained struct {
	Setting Setting
	// Values has one text unless the setting is a list. Secrets are ***.
	Values []string
	Origin Origin
}

// Value is the values in one text.
func (e Explained) Value() string { return strings.Join(e.Values, " ") }

// Explain says what is in force and where each value came from, in the table's
// order. Hidden settings are in it only where somebody set them, those outside the
// scope that was loaded not at all.
func (c *Config) Explain() []Explained {
	var out []Explained
	for _, row := range table() {
		origin, ok := c.origins[row.Key]
		if !ok || row.Hidden && origin.Source == SourceDefault {
			continue
		}
		values := row.show(c)
		if row.Secret && (len(values) > 1 || len(values) == 1 && values[0] != "") {
			values = []string{hiddenSecret}
		}
		out = append(out, Explained{Setting: row.Setting, Values: values, Origin: origin})
	}
	return out
}

// File is the configuration file that was read, "" for none.
func (c *Config) File() string { return c.file }

// Origin is where the value of a setting came from; its zero value for an unknown key.
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// WriteTable writes what Explain says for people.
func (c *Config) WriteTable(w io.Writer) error {
	var b strings.Builder
	file := c.file
	if file == "" {
		file = "none"
	}
	fmt.Fprintf(&b, "Configuration file: %s\n", file)
	rows := c.Explain()
	keyWidth, valueWidth := 0, 0
	for _, e := range rows {
		keyWidth, valueWidth = max(keyWidth, len(e.Setting.Key)), max(valueWidth, min(len(e.Value()), widestValue))
	}
	group := ""
	for _, e := range rows {
		if e.Setting.Group != group {
			group = e.Setting.Group
			fmt.Fprintf(&b, "\n%s\n", strings.ToUpper(group))
		}
		value := e.Value()
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(&b, "  %-*s  %-*s  %s\n", keyWidth, e.Setting.Key, valueWidth, value, e.Origin)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// widestValue is the widest value that the others are aligned with.
const widestValue = 36

// WriteJSON writes what Explain says for programs.
func (c *Config) WriteJSON(w io.Writer) error {
	type row struct {
		Name        string `json:"name"`
		Value       any    `json:"value"`
		Source      Source `json:"source"`
		Where       string `json:"where"`
		Flag        string `json:"flag"`
		Environment string `json:"environment"`
		Help        string `json:"help"`
	}
	out := struct {
		File     string `json:"file"`
		Settings []row  `json:"settings"`
	}{File: c.file}
	for _, e := range c.Explain() {
		var value any = e.Values
		if !e.Setting.List {
			value = e.Value()
		}
		out.Settings = append(out.Settings, row{e.Setting.Key, value, e.Origin.Source, e.Origin.Where,
			"--" + e.Setting.Flag, e.Setting.Env, e.Setting.Help})
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// WriteYAML writes a configuration file that says the same as this configuration,
// with the origin of each value beside it. Secrets are left out: the comment in their
// place says so.
func (c *Config) WriteYAML(w io.Writer) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	var secrets []string
	for _, e := range c.Explain() {
		if e.Setting.Secret && len(e.Values) == 1 && e.Values[0] == hiddenSecret {
			secrets = append(secrets, e.Setting.Key)
			continue
		}
		value := &yaml.Node{Kind: yaml.ScalarNode, Value: e.Value()}
		switch {
		case e.Setting.List:
			value = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
			for _, v := range e.Values {
				value.Content = append(value.Content, &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: v})
			}
		case e.Setting.Switch:
			value.Tag = "!!bool"
		case isNumber(value.Value):
			value.Tag = "!!int"
		default:
			value.Tag = "!!str" // the encoder quotes what would read as something else
		}
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: e.Setting.Key, HeadComment: e.Setting.Help + "\n" + e.Origin.String()}
		root.Content = append(root.Content, key, value)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	for _, key := range secrets {
		b.WriteString("# " + key + " is set, and not shown: " + hiddenSecret + "\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

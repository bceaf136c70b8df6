package main

import (
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/isobar-project/isobar/node"
)

// settingFlags makes a struct with a flag for every setting of a scope: the table in
// package node is the only list of them.
func settingFlags(scope node.Scope) any {
	var fields []reflect.StructField
	for _, s := range node.Settings() {
		if s.Scope&scope == 0 {
			continue
		}
		var t reflect.Type
		extra := ""
		switch {
		case s.List:
			t, extra = reflect.TypeFor[[]string](), ` sep:"none"`
		case s.Switch:
			t, extra = reflect.TypeFor[*bool](), ` negatable:""`
		default:
			t = reflect.TypeFor[*string]()
		}
		if s.Hidden {
			extra += ` hidden:""`
		}
		if s.Form != "" {
			extra += fmt.Sprintf(` placeholder:"%s"`, s.Form)
		}
		help := strings.ToUpper(s.Help[:1]) + s.Help[1:] + " (" + s.Env + ")."
		if s.List {
			help = strings.TrimSuffix(help, ".") + "; may be given again."
		}
		fields = append(fields, reflect.StructField{
			Name: "F" + strings.ReplaceAll(s.Key, "_", ""), Type: t,
			Tag: reflect.StructTag(fmt.Sprintf(`name:"%s" help:%s group:"%s" key:"%s"%s`, s.Flag, strconv.Quote(help), s.Group, s.Key, extra)),
		})
	}
	return reflect.New(reflect.StructOf(fields)).Interface()
}

// given collects the flags that were on the command line. Paths count from the current
// folder, which a configuration file cannot know.
func given(plugins kong.Plugins, file string) (node.Given, error) {
	g := node.Given{File: file, Flags: map[string][]string{}}
	settings := map[string]node.Setting{}
	for _, s := range node.Settings() {
		settings[s.Key] = s
	}
	for _, p := range plugins {
		v := reflect.ValueOf(p).Elem()
		for i := range v.NumField() {
			key := v.Type().Field(i).Tag.Get("key")
			values, ok := flagTexts(v.Field(i))
			if !ok {
				continue
			}
			if form := settings[key].Form; form == "DIR" || form == "FILE" {
				for i, path := range values {
					abs, err := filepath.Abs(path)
					if err != nil {
						return g, usage("--%s: %v", settings[key].Flag, err)
					}
					values[i] = abs
				}
			}
			g.Flags[key] = values
		}
	}
	return g, nil
}

// flagTexts are the values of one flag; false if it was not given.
func flagTexts(v reflect.Value) ([]string, bool) {
	switch {
	case v.IsNil():
		return nil, false
	case v.Kind() == reflect.Slice:
		return v.Interface().([]string), v.Len() > 0
	case v.Elem().Kind() == reflect.Bool:
		return []string{strconv.FormatBool(v.Elem().Bool())}, true
	}
	return []string{v.Elem().String()}, true
}

// configCommand shows the configuration.
type configCommand struct {
	JSON bool `name:"json" xor:"form" help:"For programs."`
	NATS bool `name:"nats" xor:"form" help:"As accounts of a nats-server that keeps the configured tenants apart."`
	YAML bool `name:"yaml" xor:"form" help:"As a configuration file that says the same."`
	kong.Plugins
}

// Help is the long help.
func (configCommand) Help() string {
	return `Values are taken from flags, then ISOBAR_… variables, then the configuration file, then defaults; each is shown with where it came from. It takes the same flags as "isobar run", so that a command line can be tried before it is used. Secrets are shown as ***.

    isobar config
    isobar config --device ram:ram-0=8GiB --model-root /models
    isobar config --nats > /etc/nats/isobar.conf
    isobar config --yaml > ~/.config/isobar/config.yaml`
}

// Run implements the command.
func (c *configCommand) Run(k *call) error {
	g, err := given(c.Plugins, k.file)
	if err != nil {
		return err
	}
	cfg, err := node.Load(k.world, node.ScopeNode|node.ScopeVault|node.ScopeClient, g)
	if err != nil {
		return err
	}
	switch {
	case c.NATS:
		text, err := cfg.NATSConfig()
		if err != nil {
			return err
		}
		_, err = io.WriteString(k.out, text)
		return err
	case c.JSON:
		return cfg.WriteJSON(k.out)
	case c.YAML:
		return cfg.WriteYAML(k.out)
	}
	return cfg.WriteTable(k.out)
}

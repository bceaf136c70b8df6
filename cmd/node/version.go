package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// developmentVersion is the version of a build that nobody gave one.
const developmentVersion = "0.0.0-dev"

// buildVersion is the linker's word, else the module's version, else that of the
// source it was built from; always SemVer without the v, as NATS services want it.
func buildVersion(linked string) string {
	if linked != "" {
		return strings.TrimPrefix(linked, "v")
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return developmentVersion
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return strings.TrimPrefix(v, "v")
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				changed = ".changed"
			}
		}
	}
	if revision == "" {
		return developmentVersion
	}
	return developmentVersion + "+" + revision + changed
}

type versionCommand struct {
	JSON bool `name:"json" help:"For programs."`
}

// Run implements the command.
func (v *versionCommand) Run(k *call) error {
	if v.JSON {
		_, err := fmt.Fprintf(k.out, "{\"version\":%q,\"go\":%q,\"platform\":%q}\n", k.version, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
		return err
	}
	_, err := fmt.Fprintf(k.out, "isobar %s (%s, %s/%s)\n", k.version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

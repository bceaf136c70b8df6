package weights

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// maxEntries bounds how much of a folder is looked at.
const maxEntries = 1 << 16

// wellKnown are the names that the usual libraries look for themselves; they decide
// when a folder holds several models (variants in other precisions, mostly).
var wellKnown = []string{
	"model.safetensors.index.json",
	"model.safetensors",
	"diffusion_pytorch_model.safetensors.index.json",
	"diffusion_pytorch_model.safetensors",
}

// laterPart matches every part but the first of a split GGUF model.
var laterPart = regexp.MustCompile(`-(\d{5})-of-\d{5}\.gguf$`)

// choose finds the one model in an opened folder: a well-known name, else the only
// index, else the only file.
func choose(dir *os.File, at place) (place, error) {
	var indexes, files []string
	left := maxEntries
	for {
		names, err := dir.Readdirnames(1024)
		for _, n := range names {
			switch m := laterPart.FindStringSubmatch(n); {
			case strings.HasSuffix(n, ".safetensors.index.json"):
				indexes = append(indexes, n)
			case strings.HasSuffix(n, ".safetensors"):
				files = append(files, n)
			case strings.HasSuffix(n, ".gguf") && (m == nil || m[1] == "00001"):
				files = append(files, n)
			}
		}
		if left -= len(names); left < 0 {
			return place{}, &FormatError{at.path(), 0, fmt.Sprintf("folder of more than %d entries; name the model's file", maxEntries)}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return place{}, at.wrap(err)
		}
	}
	for _, n := range wellKnown {
		if slices.Contains(indexes, n) || slices.Contains(files, n) {
			return at.inside(n), nil
		}
	}
	for _, found := range [][]string{indexes, files} {
		switch len(found) {
		case 0:
		case 1:
			return at.inside(found[0]), nil
		default:
			slices.Sort(found)
			shown := strings.Join(found[:min(len(found), 5)], ", ")
			return place{}, &FormatError{at.path(), 0, "folder with several models (" + shown + "); name one"}
		}
	}
	return place{}, &FormatError{at.path(), 0, "folder without a model (.safetensors, .safetensors.index.json or .gguf)"}
}

// Package gpucheck is a place for the tests of the programs that measure a GPU host; they are
// written in Python and lie beside. README.md says how they are used.
package gpucheck

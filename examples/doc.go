// Package examples is programs that use a node from outside: map.py, in Python with its
// standard library alone, and go, in Go. It has no code of its own; its test runs each of
// them against a node, so that what they show is true.
package examples

// Package examples is programs that use a node from outside: map.py, in Python with its
// standard library alone, go, in Go, and javascript and csharp, which follow the pressure of
// a device. It has no code of its own; its test runs each of them against a node, so that
// what they show is true; JavaScript and C# where their toolchains are to be had.
package examples

// Package examples is programs that use a node from outside: map.py, in Python with its
// standard library alone, go, in Go, and javascript and csharp, which follow the pressure of
// a device, and pytorch, in Python with its client: processes that share models on a GPU or in
// main memory. It has no code of its own; its test runs each of them against a node, so that
// what they show is true; JavaScript and C# where their toolchains are to be had.
package examples

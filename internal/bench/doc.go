// Package bench is the frame of the benchmark programs: flags, tables, one JSON object.
//
// A program has its flags registered with package flag and calls Main, once, from its own
// main. Nothing here may be called from more than one goroutine.
package bench

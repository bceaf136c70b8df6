// Package doctor looks whether a machine has what a node needs, and says for each thing
// that it lacks which command mends it.
//
// Examine is given the machine: its files, its limits and a few probes that try for real
// what a file only claims. It changes nothing and needs no node.
//
// # Testing
//
// Every part of Machine is injected; doctor_test.go has sick machines made of fstest.MapFS.
// This machine is Here.
package doctor

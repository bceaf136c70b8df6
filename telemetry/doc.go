// Package telemetry serves what operators' programs ask of a node over HTTP: /metrics for
// Prometheus, /livez and /readyz for whoever starts and stops it.
//
//	/metrics  the page of package metrics
//	/livez    200 while every actor answers within Patience, else 503 and who does not
//	/readyz   200 while the node can do its work, else 503 and why not, one reason a line
//
// It speaks on loopback unless told otherwise: figures name tenants and their bytes, and
// nobody is asked who he is.
//
// # Blocking
//
// Serve returns at once. Requests wait for the node's answers on their own goroutines, at
// most Patience; of each path one is served at a time, so that no flood of requests
// becomes one of questions to the actors.
//
// # Failure
//
// A port that is taken is an error of Serve, which the node turns into a warning: memory is
// served without it.
package telemetry

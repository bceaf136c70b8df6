// Package metrics keeps a node's figures and writes them as a page in Prometheus' text
// format 0.0.4, which OpenMetrics scrapers read too.
//
// Figures are of two kinds. What happens is counted where it happens (Command, Granted,
// Publish of the Tap); what is, such as bytes by state, is asked of the actors when the
// page is written (Snapshot). The table in table.go names every metric once; documentation,
// dashboard and alert rules are held to it by tests.
//
// # Blocking and cost
//
// Recording may be done from any goroutine. On the path of a command it is a few atomic
// additions to fields found by index: no lock, no map that changes, no allocation (see
// BenchmarkCommand). What happens a few times a second at most, evictions and loads, takes a
// lock. Write reads without stopping anybody: a page is not of one instant, but each figure is.
//
// # Bounds
//
// The number of series is bounded by what is known at the start (actions, codes, devices)
// and by the tenants that hold memory. Nothing that a client chooses freely becomes a label.
//
// # Testing
//
// TestPage compares a page with a golden file; `go test ./metrics -rewrite` writes it anew.
package metrics

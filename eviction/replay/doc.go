// Package replay runs an eviction policy over a trace of model requests and
// counts the seconds of reloading. It is what benchmarks and tests judge
// policies by, and by which a node says what more memory would save (Again).
//
// A trace is a folder with requests, models and proven lower bounds (Read says
// which files). A request needs its base and all its LoRAs resident together
// while it is served; what is missing is loaded in the request's order, and
// what the request needs is not evicted for it. The score is the seconds
// of reloading, first loads included, over the lower bound.
package replay

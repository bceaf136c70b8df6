// Package heap decides where the grants of one device lie: in which segment, at
// which offset. It is pure bookkeeping, without memory, goroutine or clock.
package heap

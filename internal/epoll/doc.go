// Package epoll waits for descriptors that Go's own poller does not take, by an epoll set
// that sits in it: no thread is kept for that.
//
// What fires is told from one goroutine, which the callback must not block. Add and Remove may
// be called from any goroutine, from the callback too; Close not from the callback.
package epoll

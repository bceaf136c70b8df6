// Package tracing sends spans to a collector by OTLP over HTTP, in its JSON form.
//
// Trace contexts are W3C's: Parse reads a traceparent header. The Exporter gathers spans
// and posts them in batches; it is the whole of what a node needs of OpenTelemetry.
//
// # Blocking and failure
//
// Add never waits: beyond Queue spans that wait it drops and counts. A batch that the
// collector does not take is dropped and counted; nothing is tried again, since what comes
// next is worth more than what was.
//
// # Testing
//
// Point Config.Endpoint at an httptest.Server; see exporter_test.go.
package tracing

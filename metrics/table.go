package metrics

// Kind is what a metric is to Prometheus.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Desc describes one metric.
type Desc struct {
	Name   string
	Kind   Kind
	Help   string
	Labels []string
}

// The index of each metric in the table.
const (
	buildInfo = iota
	startTime
	commandsTotal
	commandSeconds
	grantSeconds
	queueSeconds
	loadSeconds
	eventSeconds
	loadRate
	copyRate
	loadedBytes
	copiedBytes
	evictionsTotal
	evictedBytes
	deviceLimit
	devicePhysical
	deviceBytes
	deviceAvailable
	deviceReclaimable
	deviceModels
	devicePeak
	deviceLargest
	deviceFragmentation
	deviceDrift
	deviceHealth
	deviceAge
	grantBytes
	grantCount
	grantsTotal
	releasesTotal
	refusalsTotal
	pressureLevel
	pressureChanges
	queueLength
	queueBytes
	mailboxWaiting
	eventsPublished
	eventsDropped
	eventsWaiting
	warningsInForce
	spansExported
	spansDropped
	residentBytes
	anonymousBytes
	openFiles
	goroutines
	surveyOK
)

// table is every metric in the order of the page.
var table = [...]Desc{
	buildInfo:      {"isobar_build_info", Gauge, "Always 1; the labels say what is running.", []string{"version", "go_version", "node"}},
	startTime:      {"isobar_start_time_seconds", Gauge, "When the node began to serve, in seconds since 1970.", nil},
	commandsTotal:  {"isobar_commands_total", Counter, "Commands answered, by action and error code; code OK is success.", []string{"action", "code"}},
	commandSeconds: {"isobar_command_duration_seconds", Histogram, "Time from a command's arrival to its answer, which may be that it waits.", []string{"action"}},
	grantSeconds:   {"isobar_grant_duration_seconds", Histogram, "Time that grants by allocate took, waiting for room included.", []string{"device"}},
	queueSeconds:   {"isobar_queue_wait_seconds", Histogram, "Time that grants waited for room; those that did not wait are in the first bucket.", []string{"device"}},
	loadSeconds:    {"isobar_load_duration_seconds", Histogram, "Time that loads of models took.", []string{"device"}},
	eventSeconds:   {"isobar_event_delay_seconds", Histogram, "Time from what happened to its event being given to NATS.", nil},
	loadRate:       {"isobar_load_bytes_per_second", Histogram, "Throughput of loads of models.", []string{"device"}},
	copyRate:       {"isobar_copy_bytes_per_second", Histogram, "Throughput of copy, clear and transfer.", []string{"kind"}},
	loadedBytes:    {"isobar_loaded_bytes_total", Counter, "Bytes of models loaded.", []string{"device"}},
	copiedBytes:    {"isobar_copied_bytes_total", Counter, "Bytes copied, cleared or transferred by command.", []string{"kind"}},
	evictionsTotal: {"isobar_evictions_total", Counter, "Models released or demoted to make room, by what asked for it.", []string{"device", "reason"}},
	evictedBytes:   {"isobar_evicted_bytes_total", Counter, "Bytes that those evictions were to free.", []string{"device", "reason"}},

	deviceLimit:         {"isobar_device_limit_bytes", Gauge, "The limit in force.", []string{"device", "type"}},
	devicePhysical:      {"isobar_device_physical_bytes", Gauge, "What the device has.", []string{"device", "type"}},
	deviceBytes:         {"isobar_device_bytes", Gauge, "Bytes by state; the states add up to the limit as long as it is kept.", []string{"device", "type", "state"}},
	deviceAvailable:     {"isobar_device_available_bytes", Gauge, "What a request can get when room is made for it.", []string{"device"}},
	deviceReclaimable:   {"isobar_device_reclaimable_bytes", Gauge, "What models hold that nobody reads.", []string{"device"}},
	deviceModels:        {"isobar_device_model_bytes", Gauge, "What models hold.", []string{"device"}},
	devicePeak:          {"isobar_device_peak_bytes", Gauge, "The most that was ever used.", []string{"device"}},
	deviceLargest:       {"isobar_device_largest_grantable_bytes", Gauge, "The largest request that would be granted at once.", []string{"device"}},
	deviceFragmentation: {"isobar_device_fragmentation_ratio", Gauge, "1 - largest free / free inside segments.", []string{"device"}},
	deviceDrift:         {"isobar_device_drift_bytes", Gauge, "The driver's bytes less the ledger's.", []string{"device"}},
	deviceHealth:        {"isobar_device_health_score", Gauge, "100 for a device without fault.", []string{"device"}},
	deviceAge:           {"isobar_device_sample_age_seconds", Gauge, "Age of the figures of what others use; absent before the first.", []string{"device"}},
	grantBytes:          {"isobar_grant_bytes", Gauge, "Bytes granted, by who holds them and what for.", []string{"device", "tenant", "class"}},
	grantCount:          {"isobar_grants", Gauge, "Grants, by who holds them and what for.", []string{"device", "tenant", "class"}},
	grantsTotal:         {"isobar_grants_total", Counter, "Grants since the device's ledger began.", []string{"device"}},
	releasesTotal:       {"isobar_releases_total", Counter, "Releases since the device's ledger began.", []string{"device"}},
	refusalsTotal:       {"isobar_refusals_total", Counter, "Refused requests for memory since the device's ledger began.", []string{"device"}},
	pressureLevel:       {"isobar_pressure_level", Gauge, "0 low, 1 moderate, 2 high, 3 critical.", []string{"device"}},
	pressureChanges:     {"isobar_pressure_changes_total", Counter, "Changes of level, by the level entered.", []string{"device", "level"}},
	queueLength:         {"isobar_queue_length", Gauge, "Requests that wait for room.", []string{"device"}},
	queueBytes:          {"isobar_queue_bytes", Gauge, "Bytes that they wait for.", []string{"device"}},

	mailboxWaiting:  {"isobar_mailbox_messages", Gauge, "Messages that wait for an actor.", []string{"actor", "lane"}},
	eventsPublished: {"isobar_events_published_total", Counter, "Events given to NATS.", nil},
	eventsDropped:   {"isobar_events_dropped_total", Counter, "Events given up while NATS was away.", nil},
	eventsWaiting:   {"isobar_events_waiting", Gauge, "Events that wait for NATS.", nil},
	warningsInForce: {"isobar_warnings", Gauge, "Warnings in force.", []string{"code", "severity"}},
	spansExported:   {"isobar_spans_exported_total", Counter, "Spans that the collector took.", nil},
	spansDropped:    {"isobar_spans_dropped_total", Counter, "Spans given up because the collector took less than was made.", nil},
	residentBytes:   {"isobar_process_resident_bytes", Gauge, "Resident memory of the node's process, shared memory that it touches included.", nil},
	anonymousBytes:  {"isobar_process_anonymous_bytes", Gauge, "Resident memory that is the process's own.", nil},
	openFiles:       {"isobar_process_open_files", Gauge, "Open descriptors.", nil},
	goroutines:      {"isobar_process_goroutines", Gauge, "Goroutines.", nil},
	surveyOK:        {"isobar_survey_complete", Gauge, "1 if every device gave its figures for this page, else 0 and they are absent.", nil},
}

// Table describes every metric, in the order of the page.
func Table() []Desc { return append([]Desc(nil), table[:]...) }

package schemas

import "time"

// Severity says how much a warning matters.
type Severity string

// The severities, mildest first.
const (
	SeverityNotice   Severity = "notice"   // worth knowing; nothing is wrong
	SeverityWarning  Severity = "warning"  // works, but less well or less safely than it could
	SeverityCritical Severity = "critical" // something promised does not hold until it is mended
)

var severityNames = []string{"notice", "warning", "critical"}

// Names implements Enum.
func (Severity) Names() []string { return severityNames }

// WarningCode names a kind of warning. Programs may branch on it; texts may change.
type WarningCode string

// The codes of warnings.
const (
	WarnNoHistory       WarningCode = "no_history"
	WarnDisconnected    WarningCode = "nats_disconnected"
	WarnDenied          WarningCode = "nats_permission_denied"
	WarnOverrun         WarningCode = "commands_lost"
	WarnEventsDropped   WarningCode = "events_dropped"
	WarnVaultMissing    WarningCode = "vault_missing"
	WarnDeviceDegraded  WarningCode = "device_degraded"
	WarnDeviceFailing   WarningCode = "device_failing"
	WarnDeviceLost      WarningCode = "device_lost"
	WarnStaleSamples    WarningCode = "stale_samples"
	WarnDrift           WarningCode = "drift"
	WarnZombie          WarningCode = "zombie_bytes"
	WarnNoHugePages     WarningCode = "no_huge_pages"
	WarnNoProof         WarningCode = "no_proof_of_release"
	WarnDeviceNote      WarningCode = "device_note"
	WarnHTTPUnavailable WarningCode = "http_unavailable"
	WarnSpansDropped    WarningCode = "spans_dropped"
	WarnTwin            WarningCode = "node_name_taken"
	WarnDeviceMissing   WarningCode = "device_missing"
	WarnGPUUnavailable  WarningCode = "gpu_unavailable"
	WarnGPUReady        WarningCode = "gpu_ready"
	WarnNoGPU           WarningCode = "no_gpu"
)

// WarningSpec describes one code.
type WarningSpec struct {
	Code     WarningCode
	Severity Severity
	// Means is one sentence for the reference.
	Means string
}

var warningSpecs = []WarningSpec{
	{WarnDisconnected, SeverityCritical, "The node has lost its connection to NATS; commands do not arrive and events wait."},
	{WarnVaultMissing, SeverityCritical, "No vault holds the memory: what is granted goes on, but would not survive the node."},
	{WarnDeviceLost, SeverityCritical, "The device is gone."},
	{WarnTwin, SeverityCritical, "Another node of the same name serves on this NATS: which of the two does a command is chance."},
	{WarnDeviceFailing, SeverityCritical, "The device answers with errors."},
	{WarnDeviceMissing, SeverityWarning, "A device of an earlier node is not configured; what was granted on it is kept, and cannot be asked for."},
	{WarnGPUUnavailable, SeverityWarning, "A GPU that was asked for is not in use; what was granted on it before is kept."},
	{WarnGPUReady, SeverityWarning, "A GPU has come up after the node had started without it; the next start uses it."},
	{WarnDeviceDegraded, SeverityWarning, "The device works less well than it should."},
	{WarnStaleSamples, SeverityWarning, "What others use of the device cannot be read, so that pressure is judged by old figures."},
	{WarnDrift, SeverityWarning, "The driver holds another number of bytes than the ledger says."},
	{WarnZombie, SeverityWarning, "Released bytes are still held by a process."},
	{WarnNoHistory, SeverityWarning, "Events are published but not kept: who comes late cannot read them."},
	{WarnDenied, SeverityWarning, "The NATS server refused something for want of permission."},
	{WarnOverrun, SeverityWarning, "Commands arrived faster than they were taken, and some were lost."},
	{WarnEventsDropped, SeverityWarning, "The backlog of events overflowed while NATS was away; gap events say which are missing."},
	{WarnHTTPUnavailable, SeverityWarning, "Metrics and probes are not served."},
	{WarnSpansDropped, SeverityNotice, "The collector of traces took less than was made."},
	{WarnNoHugePages, SeverityNotice, "Main memory is granted in small pages: first touch and release cost more."},
	{WarnNoProof, SeverityNotice, "The kernel cannot prove the device's releases; sessions and processes confirm them."},
	{WarnNoGPU, SeverityNotice, "The machine has no GPU, or none that this node can use."},
	{WarnDeviceNote, SeverityNotice, "The device has something to say that is no fault."},
}

// WarningSpecs lists every code, the worst first.
func WarningSpecs() []WarningSpec { return append([]WarningSpec(nil), warningSpecs...) }

// SeverityOf is a code's severity; a code that is not in the table is a warning.
func SeverityOf(c WarningCode) Severity {
	for i := range warningSpecs {
		if warningSpecs[i].Code == c {
			return warningSpecs[i].Severity
		}
	}
	return SeverityWarning
}

// HealthWarning says that something is not as it should be while the node goes on. Code,
// DeviceID and Subject together are its identity.
type HealthWarning struct {
	Code     WarningCode `json:"code"`
	Severity Severity    `json:"severity"`
	DeviceID string      `json:"device_id,omitempty"`
	// Subject tells warnings of one code apart: a connection, a NATS subject.
	Subject string `json:"subject,omitempty"`
	Text    string `json:"text"`
	// Fix is what a person can do about it.
	Fix string `json:"fix"`
	// Since is when it was first raised, as long as it has been in force without a break.
	Since time.Time `json:"since"`
}

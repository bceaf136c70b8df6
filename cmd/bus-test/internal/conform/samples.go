package conform

import "github.com/isobar-project/isobar/schemas"

// Names of things that are not there.
const (
	nobody  = "00000000-0000-8000-8000-000000000000"
	nowhere = "gpu-99"
	noModel = "conform-none"
)

// modelName is the model that conform loads.
const modelName = "conform-model"

// sample is a request of an action that is sound in shape: bad ones are made from it.
type sample struct {
	action schemas.Action
	data   object
	// answer is what it is answered; "" is success.
	answer schemas.Code
	// absent are requests that name what is not there.
	absent []absent
}

type absent struct {
	what string
	data object
	code schemas.Code
}

// samples are of all actions of the contract. What the node has not built is left out.
func (w *world) samples() []sample {
	grant := object{"allocation_id": nobody}
	operation := object{"operation_id": nobody}
	device := func(more ...any) []absent {
		data := object{"device_id": nowhere}
		for i := 0; i < len(more); i += 2 {
			data[more[i].(string)] = more[i+1]
		}
		return []absent{{"unknown-device", data, schemas.CodeInvalidDevice}}
	}
	far := w.other
	if far == "" {
		far = w.device
	}
	return []sample{
		{action: schemas.ActionGetStatus, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionGetUsage, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionGetAllocations, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionGetAllocation, data: grant, answer: schemas.CodeAllocationNotFound},
		{action: schemas.ActionAllocate, data: object{"device_id": w.device, "size_bytes": 2 * mib}, absent: append(device("size_bytes", 1),
			absent{"unknown-session", object{"device_id": w.device, "size_bytes": 1, "session_id": nobody}, schemas.CodeStaleHandle},
			absent{"beyond-the-device", object{"device_id": w.device, "size_bytes": int64(schemas.MaxSizeBytes)}, schemas.CodeOutOfMemory})},
		{action: schemas.ActionDeallocate, data: grant, answer: schemas.CodeAllocationNotFound},
		{action: schemas.ActionGetHandle, data: grant, answer: schemas.CodeAllocationNotFound,
			absent: []absent{{"unknown-model", object{"model_name": noModel}, schemas.CodeModelNotFound}}},
		{action: schemas.ActionRenew, data: object{"allocation_ids": []any{nobody}, "lease_seconds": 10}, answer: schemas.CodeAllocationNotFound},
		{action: schemas.ActionClear, data: grant, answer: schemas.CodeAllocationNotFound, absent: device("confirm", true)},
		{action: schemas.ActionCopy, data: object{"source_allocation_id": nobody, "target_allocation_id": nobody[:35] + "1"}, answer: schemas.CodeAllocationNotFound},
		{action: schemas.ActionTransfer, data: object{"allocation_id": nobody, "target_device_id": far}, answer: schemas.CodeAllocationNotFound},
		{action: schemas.ActionGetTransfer, data: object{"transfer_id": nobody}, answer: schemas.CodeTransferNotFound},
		{action: schemas.ActionCancelTransfer, data: object{"transfer_id": nobody}, answer: schemas.CodeTransferNotFound},
		{action: schemas.ActionGetOperation, data: operation, answer: schemas.CodeOperationNotFound},
		{action: schemas.ActionCancelOperation, data: operation, answer: schemas.CodeOperationNotFound},
		{action: schemas.ActionGetQueue, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionDefragment, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionOptimize, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionSetLimits, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionLoadModel, data: object{"name": noModel}, answer: schemas.CodeModelNotFound,
			absent: []absent{{"no-such-file", object{"name": noModel, "path": "/nonexistent/model.safetensors"}, schemas.CodeFileNotReadable}}},
		{action: schemas.ActionUnloadModel, data: object{"name": noModel}, answer: schemas.CodeModelNotFound},
		{action: schemas.ActionAcquireModel, data: object{"name": noModel, "lease_seconds": 10}, answer: schemas.CodeModelNotFound},
		{action: schemas.ActionReleaseModel, data: object{"reference_id": nobody}, answer: schemas.CodeModelNotFound},
		{action: schemas.ActionGetModelInfo, data: object{}, absent: []absent{{"unknown-model", object{"name": noModel}, schemas.CodeModelNotFound}}},
		{action: schemas.ActionModelStatus, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionModelOptimize, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionCleanup, data: object{"device_id": nowhere, "confirm": true}, answer: schemas.CodeInvalidDevice},
		{action: schemas.ActionGetPressure, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionAnalytics, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionOptimizationRecs, data: object{"device_id": w.device}, absent: device()},
		{action: schemas.ActionListDevices, data: object{}},
	}
}

// with is a copy of a request with one field changed; nil takes it out.
func with(in object, name string, v any) object {
	out := object{}
	for k, x := range in {
		out[k] = x
	}
	if out[name] = v; v == nil {
		delete(out, name)
	}
	return out
}

// null stands for a field that is there and null.
type null struct{}

// MarshalJSON implements json.Marshaler.
func (null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

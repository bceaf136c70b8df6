package schemas

// outcome is what an action can end in besides its reply.
type outcome struct {
	// errors are those of the action itself; commonErrors come besides.
	errors []Code
	// events are the groups (EventSpec.Name) that its effects are published in.
	events []string
}

// commonErrors can answer every action.
var commonErrors = []Code{CodeInvalidRequest, CodeUnauthorized, CodeForbidden, CodePayloadTooLarge, CodeUnsupportedMediaType, CodeBusy,
	CodeInternalError, CodeDeviceLost, CodeDraining, CodeNoNode}

// changingErrors can answer every changing action besides.
var changingErrors = []Code{CodeRequestIDReused, CodeCancelled}

// Errors lists the codes that can answer the action, in the order of the error table.
func (s *Spec) Errors() []Code {
	can := map[Code]bool{}
	add := func(list []Code) {
		for _, c := range list {
			can[c] = true
		}
	}
	add(commonErrors)
	add(outcomes[s.Action].errors)
	if s.Changing {
		add(changingErrors)
	}
	var out []Code
	for _, c := range codes {
		if can[c.Code] {
			out = append(out, c.Code)
		}
	}
	return out
}

// Events lists the groups of events that the action's effects are published in, besides
// those of pressure, which every change of bytes may cause, and of commands without a
// reply subject.
func (s *Spec) Events() []string { return outcomes[s.Action].events }

var outcomes = map[Action]outcome{
	ActionGetStatus:        {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionGetUsage:         {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionGetAllocations:   {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionGetAllocation:    {errors: []Code{CodeAllocationNotFound, CodeNodeRequired}},
	ActionAllocate:         {errors: []Code{CodeInvalidDevice, CodeAllocationInUse, CodeNodeRequired, CodeOutOfMemory, CodeQuotaExceeded, CodeStaleHandle}, events: []string{"allocation"}},
	ActionDeallocate:       {errors: []Code{CodeAllocationNotFound, CodeAllocationInUse, CodeNodeRequired, CodeStaleHandle}, events: []string{"allocation"}},
	ActionGetHandle:        {errors: []Code{CodeAllocationNotFound, CodeModelNotFound, CodeInvalidDevice, CodeNodeRequired, CodeStaleHandle}},
	ActionRenew:            {errors: []Code{CodeAllocationNotFound, CodeModelNotFound, CodeNodeRequired, CodeStaleHandle}},
	ActionClear:            {errors: []Code{CodeAllocationNotFound, CodeAllocationInUse, CodeInvalidDevice, CodeNodeRequired, CodeStaleHandle}, events: []string{"allocation"}},
	ActionCopy:             {errors: []Code{CodeAllocationNotFound, CodeInvalidTransferParams, CodeTransferFailed, CodeNodeRequired, CodeStaleHandle}},
	ActionTransfer:         {errors: []Code{CodeAllocationNotFound, CodeAllocationInUse, CodeInvalidDevice, CodeInvalidTransferParams, CodeTransferFailed, CodeOutOfMemory, CodeQuotaExceeded, CodeNodeRequired, CodeStaleHandle}, events: []string{"transfer", "allocation"}},
	ActionGetTransfer:      {errors: []Code{CodeTransferNotFound, CodeNodeRequired}},
	ActionCancelTransfer:   {errors: []Code{CodeTransferNotFound, CodeNodeRequired}, events: []string{"transfer"}},
	ActionGetOperation:     {errors: []Code{CodeOperationNotFound, CodeNodeRequired}},
	ActionCancelOperation:  {errors: []Code{CodeOperationNotFound, CodeNodeRequired}},
	ActionGetQueue:         {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionDefragment:       {errors: []Code{CodeInvalidDevice, CodeNodeRequired, CodeTransferFailed}, events: []string{"allocation", "optimization"}},
	ActionOptimize:         {errors: []Code{CodeInvalidDevice, CodeAllocationNotFound, CodeModelInUse, CodeNodeRequired}, events: []string{"optimization", "model", "allocation"}},
	ActionSetLimits:        {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionLoadModel:        {errors: []Code{CodeInvalidDevice, CodeAllocationInUse, CodeModelNotFound, CodeModelConflict, CodeInvalidModel, CodeFileNotReadable, CodeOutOfMemory, CodeQuotaExceeded, CodeTransferFailed, CodeStaleHandle, CodeNodeRequired}, events: []string{"model", "allocation", "optimization"}},
	ActionUnloadModel:      {errors: []Code{CodeInvalidDevice, CodeModelNotFound, CodeModelInUse, CodeOutOfMemory, CodeQuotaExceeded, CodeTransferFailed, CodeNodeRequired}, events: []string{"model", "allocation"}},
	ActionAcquireModel:     {errors: []Code{CodeInvalidDevice, CodeAllocationInUse, CodeModelNotFound, CodeModelConflict, CodeInvalidModel, CodeFileNotReadable, CodeOutOfMemory, CodeQuotaExceeded, CodeTransferFailed, CodeStaleHandle, CodeNodeRequired}, events: []string{"model", "allocation"}},
	ActionReleaseModel:     {errors: []Code{CodeInvalidDevice, CodeModelNotFound, CodeStaleHandle, CodeNodeRequired}},
	ActionGetModelInfo:     {errors: []Code{CodeModelNotFound, CodeNodeRequired}},
	ActionModelStatus:      {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionModelOptimize:    {errors: []Code{CodeInvalidDevice, CodeModelNotFound, CodeModelInUse, CodeNodeRequired}, events: []string{"optimization", "model", "allocation"}},
	ActionCleanup:          {errors: []Code{CodeInvalidDevice, CodeModelInUse, CodeAllocationInUse, CodeNodeRequired}, events: []string{"model", "allocation"}},
	ActionGetPressure:      {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionAnalytics:        {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionOptimizationRecs: {errors: []Code{CodeInvalidDevice, CodeNodeRequired}},
	ActionListDevices:      {errors: []Code{CodeNodeRequired}},
}

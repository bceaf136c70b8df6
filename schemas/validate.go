package schemas

// The rules between the fields of one request. The decoder calls Validate last,
// when every single field is already of the right shape and defaults are filled in.
// Whether what a request names exists, and whether its state allows the request, is
// for the actors to say.

// Validator is implemented by the requests that have rules between their fields.
// Validate may also fill in what follows from other fields.
type Validator interface{ Validate() *Error }

// fieldErrorf is the error for one field of a request.
func fieldErrorf(field, format string, args ...any) *Error {
	return Errorf(CodeInvalidRequest, format, args...).With("field", field)
}

// exactlyOne demands that one of two optional strings is given.
func exactlyOne(nameA, a, nameB, b string) *Error {
	switch {
	case a == "" && b == "":
		return fieldErrorf(nameA, "%s or %s is required", nameA, nameB)
	case a != "" && b != "":
		return fieldErrorf(nameB, "%s and %s exclude each other", nameA, nameB)
	}
	return nil
}

// Validate implements Validator.
func (r *AllocateRequest) Validate() *Error {
	if r.Class == ClassWeights {
		return fieldErrorf("class", "class weights is for models: use load_model")
	}
	if r.DeviceID == DeviceIDAll {
		return fieldErrorf("device_id", "an allocation needs one device")
	}
	if r.PID != nil && r.Class != ClassReservation {
		return fieldErrorf("pid", "pid is the process that a reservation follows: class=reservation is required with it")
	}
	if r.Class == ClassState {
		r.Persistent = true
	}
	return nil
}

// Validate implements Validator.
func (r *GetHandleRequest) Validate() *Error {
	return exactlyOne("allocation_id", r.AllocationID, "model_name", r.ModelName)
}

// Validate implements Validator.
func (r *LoadModelRequest) Validate() *Error {
	if r.Path != "" && r.FileClaim != "" {
		return fieldErrorf("file_claim", "path and file_claim exclude each other")
	}
	_, err := TensorHashes(r.Hashes)
	return err
}

// Validate implements Validator.
func (r *RenewRequest) Validate() *Error {
	if len(r.AllocationIDs)+len(r.ReferenceIDs) == 0 {
		return fieldErrorf("allocation_ids", "allocation_ids or reference_ids is required")
	}
	return nil
}

// Validate implements Validator.
func (r *ClearRequest) Validate() *Error {
	if err := exactlyOne("allocation_id", r.AllocationID, "device_id", r.DeviceID); err != nil {
		return err
	}
	if r.DeviceID != "" && !r.Confirm {
		return fieldErrorf("confirm", "clearing a device releases everything there: confirm=true is required")
	}
	return nil
}

// Validate implements Validator.
func (r *GetOperationRequest) Validate() *Error {
	return exactlyOne("operation_id", r.OperationID, "request_id", r.RequestID)
}

// Validate implements Validator.
func (r *CancelOperationRequest) Validate() *Error {
	return exactlyOne("operation_id", r.OperationID, "request_id", r.RequestID)
}

// Validate implements Validator.
func (r *AcquireModelRequest) Validate() *Error {
	if r.SessionID == "" && r.LeaseSeconds == nil {
		return fieldErrorf("lease_seconds", "session_id or lease_seconds is required: a reference needs an end")
	}
	return nil
}

// Validate implements Validator.
func (r *CleanupRequest) Validate() *Error {
	if !r.Confirm {
		return fieldErrorf("confirm", "confirm=true is required")
	}
	return nil
}

// leaveBelow is how far under its enter value a level is left unless a request says otherwise.
const (
	leaveBelow         = 5
	leaveBelowCritical = 4
)

// Validate implements Validator: it fills in the leave values, which must lie under
// their enter values, and demands that the levels rise.
func (r *SetLimitsRequest) Validate() *Error {
	if r.Thresholds == nil {
		return nil
	}
	last, lastName := 0.0, ""
	for _, level := range []struct {
		name  string
		t     *Threshold
		below float64
	}{
		{"thresholds.moderate", r.Thresholds.Moderate, leaveBelow},
		{"thresholds.high", r.Thresholds.High, leaveBelow},
		{"thresholds.critical", r.Thresholds.Critical, leaveBelowCritical},
	} {
		if level.t == nil {
			continue
		}
		if level.t.Leave == nil {
			leave := max(level.t.Enter-level.below, 0)
			level.t.Leave = &leave
		}
		if *level.t.Leave >= level.t.Enter {
			return fieldErrorf(level.name, "%s is left at %v, which is not under its enter value %v",
				level.name, *level.t.Leave, level.t.Enter)
		}
		if lastName != "" && level.t.Enter <= last {
			return fieldErrorf(level.name, "%s must be entered above %s", level.name, lastName)
		}
		last, lastName = level.t.Enter, level.name
	}
	return nil
}

package schemas

import "fmt"

//go:generate go run ./internal/gen
//go:generate go run ./internal/gen/reference

// Code is an error code of the contract. The constants, CodeInvalidRequest and so
// on, are generated from errors.json.
type Code string

// CodeInfo is one row of the error table.
type CodeInfo struct {
	Code   Code
	Status int
	// When says in words what the code means.
	When string
}

// OlderName is an error name of the older design documents and the codes that took
// its place.
type OlderName struct {
	Name  string
	Codes []Code
	// Of says which commands answered it.
	Of string
}

// Codes returns the error table in the contract's order. The caller must not change it.
func Codes() []CodeInfo { return codes }

// OlderNames returns the older error names. The caller must not change them.
func OlderNames() []OlderName { return olderNames }

// Status is the code's status_code, or 500 for a code that the table lacks.
func (c Code) Status() int {
	for i := range codes {
		if codes[i].Code == c {
			return codes[i].Status
		}
	}
	return 500
}

// Error is a failure as it goes over the wire.
type Error struct {
	Code    Code
	Message string
	Status  int
	// Details are small values that encode in both formats: strings, numbers, bools,
	// times, types of this package, and slices and string-keyed maps of them.
	Details map[string]any
}

// Errorf makes an error of the code; its status comes from the table.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Status: code.Status()}
}

// With adds one detail to the error, which must not be shared yet, and returns it.
func (e *Error) With(key string, value any) *Error {
	if e.Details == nil {
		e.Details = make(map[string]any, 4)
	}
	e.Details[key] = value
	return e
}

// Error implements error.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Is reports whether target is an *Error of the same code, so that errors.Is works
// with Errorf(code, "").
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

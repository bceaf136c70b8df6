package schemas_test

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isobar-project/isobar/schemas"
)

// walk visits every struct type that t reaches, once.
func walk(t reflect.Type, seen map[reflect.Type]bool, visit func(reflect.Type)) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		walk(t.Elem(), seen, visit)
	case reflect.Struct:
		if seen[t] || t == reflect.TypeFor[time.Time]() {
			return
		}
		seen[t] = true
		visit(t)
		for i := range t.NumField() {
			walk(t.Field(i).Type, seen, visit)
		}
	}
}

// roots are the types that go over the wire.
func roots() []reflect.Type {
	all := []reflect.Type{
		reflect.TypeFor[schemas.Event](), reflect.TypeFor[schemas.Pending](), reflect.TypeFor[schemas.DryRunReply](),
		reflect.TypeFor[schemas.Segment](), reflect.TypeFor[schemas.AllocationBatch](), reflect.TypeFor[schemas.ModelEvent](),
		reflect.TypeFor[schemas.OptimizationEvent](), reflect.TypeFor[schemas.CommandEvent](), reflect.TypeFor[schemas.NodeEvent](),
		reflect.TypeFor[schemas.Gap](), reflect.TypeFor[schemas.Heartbeat](), reflect.TypeFor[schemas.Device](),
	}
	for _, s := range schemas.All() {
		all = append(all, s.Request, s.Reply)
	}
	return all
}

func eachField(visit func(owner reflect.Type, f reflect.StructField)) {
	seen := map[reflect.Type]bool{}
	for _, root := range roots() {
		walk(root, seen, func(t reflect.Type) {
			for i := range t.NumField() {
				visit(t, t.Field(i))
			}
		})
	}
}

func TestEveryWireNameConvertsToPascalCaseAndBack(t *testing.T) {
	names := 0
	eachField(func(owner reflect.Type, f reflect.StructField) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || f.Anonymous {
			return
		}
		if name == "" {
			t.Errorf("%s.%s has no json tag", owner, f.Name)
		}
		for _, n := range []string{name, f.Tag.Get("alias"), f.Tag.Get("mb")} {
			if n == "" {
				continue
			}
			names++
			if back := schemas.Snake(schemas.Pascal(n)); back != n {
				t.Errorf("%s.%s: %s → %s → %s", owner, f.Name, n, schemas.Pascal(n), back)
			}
		}
		// The Go name is the mechanical one, but for Go's spelling of initialisms.
		if !strings.EqualFold(f.Name, schemas.Pascal(name)) {
			t.Errorf("%s.%s is called %s on the wire", owner, f.Name, name)
		}
	})
	for _, s := range schemas.All() {
		n := string(s.Action)
		if back := schemas.Snake(schemas.Pascal(n)); back != n {
			t.Errorf("action %s → %s", n, back)
		}
	}
	if names < 300 {
		t.Errorf("only %d names were looked at", names)
	}
}

func TestTagsAreSound(t *testing.T) {
	rules := map[string]bool{"required": false, "positive": false, "pow2": false, "min": true, "max": true, "bytes": true, "items": true}
	eachField(func(owner reflect.Type, f reflect.StructField) {
		where := owner.Name() + "." + f.Name
		for key := range strings.SplitSeq(string(f.Tag), " ") {
			key, _, _ = strings.Cut(key, ":")
			if strings.Contains("json default check alias mb", key) {
				continue
			}
			t.Errorf("%s: tag %q means nothing", where, key)
		}
		if check := f.Tag.Get("check"); check != "" {
			for rule := range strings.SplitSeq(check, ",") {
				name, arg, has := strings.Cut(rule, "=")
				wants, known := rules[name]
				if !known || wants != has {
					t.Errorf("%s: rule %q", where, rule)
				}
				if has {
					if _, err := strconv.ParseInt(arg, 10, 64); err != nil {
						t.Errorf("%s: rule %q: %v", where, rule, err)
					}
				}
			}
		}
		request := strings.HasSuffix(owner.Name(), "Request")
		optional := !strings.Contains(f.Tag.Get("check"), "required")
		if request && optional && !strings.Contains(f.Tag.Get("json"), "omitempty") {
			t.Errorf("%s is optional but not omitempty", where)
		}
		elem := f.Type
		if elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		if k := elem.Kind(); request && (k == reflect.Int || k == reflect.Int64) && !strings.Contains(f.Tag.Get("check"), "max=") {
			t.Errorf("%s has no upper bound", where)
		}
		if isSize := strings.HasSuffix(f.Name, "Bytes") || strings.HasSuffix(f.Name, "Offset"); request && isSize &&
			!strings.Contains(f.Tag.Get("check"), fmt.Sprintf("max=%d", schemas.MaxSizeBytes)) {
			t.Errorf("%s may be larger than MaxSizeBytes", where)
		}
		if def := f.Tag.Get("default"); def != "" {
			if k := f.Type.Kind(); k != reflect.Pointer && k != reflect.String {
				t.Errorf("%s has a default and no way to be absent", where)
			}
		}
	})
}

func TestActionsNameTheirTypes(t *testing.T) {
	seen := map[schemas.Action]bool{}
	for _, s := range schemas.All() {
		if seen[s.Action] {
			t.Errorf("%s is there twice", s.Action)
		}
		seen[s.Action] = true
		want := schemas.Pascal(string(s.Action))
		if s.Request.Name() != want+"Request" || s.Reply.Name() != want+"Reply" {
			t.Errorf("%s has %s and %s", s.Action, s.Request.Name(), s.Reply.Name())
		}
		if _, ok := s.Reply.FieldByName("Finished"); ok != s.Changing {
			t.Errorf("%s: changing is %v, its reply has a Finished: %v", s.Action, s.Changing, ok)
		}
		if s.Changing && s.Role == schemas.RoleReader || !s.Changing && s.Lane != schemas.LaneQuery {
			t.Errorf("%s: changing %v, role %s, lane %s", s.Action, s.Changing, s.Role, s.Lane)
		}
		if s.Summary == "" {
			t.Errorf("%s has no summary", s.Action)
		}
		if got, ok := schemas.Lookup(s.Action); !ok || got != s {
			t.Errorf("Lookup(%s) = %v, %v", s.Action, got, ok)
		}
		if reflect.TypeOf(s.NewRequest()) != reflect.PointerTo(s.Request) || reflect.TypeOf(s.NewReply()) != reflect.PointerTo(s.Reply) {
			t.Errorf("%s makes %T and %T", s.Action, s.NewRequest(), s.NewReply())
		}
	}
	if s, ok := schemas.Lookup(schemas.ActionGetModelStatus); !ok || s.Action != schemas.ActionModelStatus {
		t.Error("the older name get_model_status is not known")
	}
	if _, ok := schemas.Lookup(schemas.ActionCommand); ok {
		t.Error("memory.command is no action of its own")
	}
}

//go:embed errors.json
var errorsJSON []byte

func TestErrorTableAgreesWithItsSource(t *testing.T) {
	var source struct {
		Codes []struct {
			Code   string
			Status int
			When   string
		}
		OlderNames []struct {
			Name  string
			Codes []schemas.Code
			Of    string
		} `json:"older_names"`
	}
	if err := json.Unmarshal(errorsJSON, &source); err != nil {
		t.Fatal(err)
	}
	if len(source.Codes) != len(schemas.Codes()) || len(source.OlderNames) != len(schemas.OlderNames()) {
		t.Fatal("run go generate ./schemas")
	}
	for i, c := range schemas.Codes() {
		if s := source.Codes[i]; string(c.Code) != s.Code || c.Status != s.Status || c.When != s.When {
			t.Errorf("%v is %v in errors.json: run go generate ./schemas", c, s)
		}
		if c.Code.Status() != c.Status {
			t.Errorf("%s.Status() = %d", c.Code, c.Code.Status())
		}
	}
	for i, o := range schemas.OlderNames() {
		if s := source.OlderNames[i]; !reflect.DeepEqual(o, schemas.OlderName{Name: s.Name, Codes: s.Codes, Of: s.Of}) {
			t.Errorf("%v is %v in errors.json", o, s)
		}
	}
}

func TestErrorWorksWithTheErrorsPackage(t *testing.T) {
	err := fmt.Errorf("allocate: %w", schemas.Errorf(schemas.CodeOutOfMemory, "%d bytes short", 7).With("shortfall_bytes", 7))
	var e *schemas.Error
	if !errors.As(err, &e) || e.Status != 503 || e.Details["shortfall_bytes"] != 7 || e.Error() != "OUT_OF_MEMORY: 7 bytes short" {
		t.Errorf("%+v", e)
	}
	if !errors.Is(err, schemas.Errorf(schemas.CodeOutOfMemory, "")) || errors.Is(err, schemas.Errorf(schemas.CodeBusy, "")) {
		t.Error("errors.Is does not go by the code")
	}
	if schemas.Code("MADE_UP").Status() != 500 {
		t.Error("an unknown code is a defect")
	}
}

func TestEnumerationsAreReadInAnyLetterCase(t *testing.T) {
	if d, err := schemas.ParseDeviceType("sharedmemory"); err != nil || d != schemas.DeviceTypeSharedMemory {
		t.Error(d, err)
	}
	if l, err := schemas.ParsePressureLevel("CRITICAL"); err != nil || l != schemas.PressureCritical {
		t.Error(l, err)
	}
	if c, err := schemas.ParseClass("heap"); err == nil || c != "" {
		t.Error(c, err)
	}
}

func TestMegabytesRoundUp(t *testing.T) {
	for _, c := range []struct {
		mb    float64
		bytes int64
		ok    bool
	}{
		{0, 0, true}, {1, 1 << 20, true}, {0.5, 1 << 19, true}, {1e-9, 1, true}, {1.0000001, 1<<20 + 1, true},
		{-0.1, 0, false}, {8796093022208, 0, false}, {8796093022207, math.MaxInt64 - 1<<20 + 1, true},
		{math.NaN(), 0, false}, {math.Inf(1), 0, false}, {1e300, 0, false},
	} {
		if b, ok := schemas.BytesOfMegabytes(c.mb); b != c.bytes || ok != c.ok {
			t.Errorf("%v MB = %d, %v", c.mb, b, ok)
		}
	}
}

func TestSubjects(t *testing.T) {
	for got, want := range map[string]string{
		schemas.CommandSubject(schemas.ActionAllocate):            "memory.allocate",
		schemas.NodeCommandSubject(schemas.ActionAllocate, "n-1"): "memory.allocate.n-1",
		schemas.AnyCommandSubject():                               "memory.command",
		schemas.TenantSubject("acme", "memory.allocate"):          "isobar.acme.memory.allocate",
		schemas.PressureSubject("n-1", "n-1/gpu-0"):               "memory.events.pressure.n-1.gpu-0",
		schemas.TenantPressureSubject("acme", "n-1", "ram-0"):     "memory.events.tenant_pressure.acme.n-1.ram-0",
		schemas.AllocationSubject("n-1", "ram-0"):                 "memory.events.allocation.n-1.ram-0",
		schemas.ModelSubject("n-1", "ram-0"):                      "memory.events.model.n-1.ram-0",
		schemas.TransferSubject("n-1"):                            "memory.events.transfer.n-1",
		schemas.OptimizationSubject("n-1", "ram-0"):               "memory.events.optimization.n-1.ram-0",
		schemas.CommandEventSubject("n-1"):                        "memory.events.command.n-1",
		schemas.NodeSubject("n-1"):                                "memory.events.node.n-1",
		schemas.HeartbeatSubject("n-1"):                           "memory.heartbeat.n-1",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for subject, want := range map[string]string{
		"memory.allocate":                   "default allocate  true",
		"memory.allocate.n-1":               "default allocate n-1 true",
		"isobar.acme.memory.get_status.n-1": "acme get_status n-1 true",
		"memory.events.pressure.n-1.ram-0":  "   false",
		"memory.heartbeat.n-1":              "   false",
		"memory.allocate.n-1.more":          "   false",
		"isobar.acme":                       "   false",
		"memory.":                           "   false",
		"":                                  "   false",
	} {
		tenant, action, node, ok := schemas.SplitCommand(subject)
		if got := fmt.Sprint(tenant, " ", action, " ", node, " ", ok); got != want {
			t.Errorf("%s: got %q, want %q", subject, got, want)
		}
	}
	for token, want := range map[string]bool{"ram-0": true, "n1": true, "": false, "-a": false, "a-": false, "A": false, "a.b": false,
		"a*": false, "a b": false, strings.Repeat("a", 64): false} {
		if schemas.ValidToken(token) != want {
			t.Errorf("ValidToken(%q) = %v", token, !want)
		}
	}
}

func TestThresholdsAreFilledInAndMustRise(t *testing.T) {
	set := func(moderate, high, critical *schemas.Threshold) *schemas.SetLimitsRequest {
		return &schemas.SetLimitsRequest{Thresholds: &schemas.Thresholds{Moderate: moderate, High: high, Critical: critical}}
	}
	at := func(enter float64) *schemas.Threshold { return &schemas.Threshold{Enter: enter} }
	r := set(at(70), at(85), at(95))
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	if *r.Thresholds.Moderate.Leave != 65 || *r.Thresholds.High.Leave != 80 || *r.Thresholds.Critical.Leave != 91 {
		t.Errorf("%v %v %v", *r.Thresholds.Moderate.Leave, *r.Thresholds.High.Leave, *r.Thresholds.Critical.Leave)
	}
	if err := set(at(85), at(70), nil).Validate(); err == nil || err.Details["field"] != "thresholds.high" {
		t.Error(err)
	}
	if err := set(nil, &schemas.Threshold{Enter: 80, Leave: ptr(80.0)}, nil).Validate(); err == nil {
		t.Error("a level that is left where it is entered was accepted")
	}
}

func ptr[T any](v T) *T { return &v }

func ExampleErrorf() {
	err := schemas.Errorf(schemas.CodeInvalidDevice, "no device %q", "gpu-7").With("device_id", "gpu-7")
	fmt.Println(err.Status, err)
	// Output: 404 INVALID_DEVICE: no device "gpu-7"
}

func ExampleLookup() {
	spec, _ := schemas.Lookup("get_model_status")
	fmt.Println(spec.Action, spec.Request.Name(), schemas.CommandSubject(spec.Action))
	// Output: model_status ModelStatusRequest memory.model_status
}

func ExamplePascal() {
	fmt.Println(schemas.Pascal("size_bytes"), schemas.Snake("SizeBytes"))
	// Output: SizeBytes size_bytes
}

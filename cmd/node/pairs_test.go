package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/schemas"
)

func TestRequestData(t *testing.T) {
	for name, c := range map[string]struct {
		action schemas.Action
		json   string
		pairs  []string
		want   string
	}{
		"sizes":            {schemas.ActionAllocate, "", []string{"size_bytes=1.5GiB", "alignment=4K"}, `{"alignment":4096,"size_bytes":1610612736}`},
		"plain number":     {schemas.ActionAllocate, "", []string{"size_bytes=1_000"}, `{"size_bytes":1000}`},
		"text stays text":  {schemas.ActionAllocate, "", []string{"purpose=1=2", "device_id=007"}, `{"device_id":"007","purpose":"1=2"}`},
		"times":            {schemas.ActionAllocate, "", []string{"lease_seconds=2m", "timeout_seconds=0"}, `{"lease_seconds":120,"timeout_seconds":0}`},
		"milliseconds":     {schemas.ActionDeallocate, "", []string{"allocation_id=x", "deadline_ms=1.5s", "force=yes"}, `{"allocation_id":"x","deadline_ms":1500,"force":true}`},
		"negative":         {schemas.ActionAllocate, "", []string{"priority=-5"}, `{"priority":-5}`},
		"list":             {schemas.ActionRenew, "", []string{"allocation_ids=a, b,c", "lease_seconds=60"}, `{"allocation_ids":["a","b","c"],"lease_seconds":60}`},
		"literal":          {schemas.ActionRenew, "", []string{`allocation_ids:=["a,b"]`}, `{"allocation_ids":["a,b"]}`},
		"fields of fields": {schemas.ActionSetLimits, "", []string{"thresholds.high=85%", "thresholds.critical.enter=95", "thresholds.critical.leave=90"}, `{"thresholds":{"critical":{"enter":95,"leave":90},"high":85}}`},
		"older name":       {schemas.ActionAllocate, "", []string{"memory_type=RAM"}, `{"memory_type":"RAM"}`},
		"megabytes":        {schemas.ActionSetLimits, "", []string{"model_limit_mb=1.5"}, `{"model_limit_mb":1.5}`},
		"wait and dry run": {schemas.ActionAllocate, "", []string{"wait_ms=3s", "dry_run=true"}, `{"dry_run":true,"wait_ms":3000}`},
		"pairs win":        {schemas.ActionAllocate, `{"size_bytes":1,"purpose":"x"}`, []string{"size_bytes=2"}, `{"purpose":"x","size_bytes":2}`},
		"long numbers":     {schemas.ActionAllocate, `{"size_bytes":1152921504606846975}`, nil, `{"size_bytes":1152921504606846975}`},
		"null":             {schemas.ActionAllocate, `null`, nil, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			spec, _ := schemas.Lookup(c.action)
			data, err := requestData(spec, c.json, c.pairs)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(data)
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
			// The node's own decoder takes it, but for what a case leaves out.
			wire, err := codec.EncodeRequest(nil, codec.JSON, codec.Call{Data: data})
			if err != nil {
				t.Fatal(err)
			}
			request, refused := codec.DecodeRequest(wire, codec.JSON, c.action)
			if field := ""; refused != nil {
				field, _ = refused.Details["field"].(string)
				if !strings.Contains(refused.Message, "required") {
					t.Errorf("the node would refuse %s: %v", field, refused)
				}
			} else if request.Data == nil {
				t.Error("nothing arrived")
			}
		})
	}
}

func TestRequestDataRefuses(t *testing.T) {
	for pair, want := range map[string]string{
		"size_bytes":         `"size_bytes" is not key=value`,
		"size_byte=1":        "did you mean size_bytes?",
		"zzz=1":              "choose from device_id, size_bytes",
		"size_bytes=many":    `size_bytes: "many" is not a size`,
		"priority=1GiB":      `priority: "1GiB" is not a whole number`,
		"lease_seconds=soon": "a duration such as 90s",
		"lease_seconds=10ms": "not a whole number of s",
		"clear=maybe":        "neither true nor false",
		"purpose:={":         "not the JSON",
	} {
		spec, _ := schemas.Lookup(schemas.ActionAllocate)
		_, err := requestData(spec, "", []string{pair})
		var misused *usageError
		if !errors.As(err, &misused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", pair, err, want)
		}
	}
	spec, _ := schemas.Lookup(schemas.ActionSetLimits)
	for _, pairs := range [][]string{{"thresholds=5"}, {"thresholds.high=5", "thresholds.high.enter=6"}, {"device_id=a", "device_id=b"}, {"thresholds.high.enter=6", "thresholds.high=5"}} {
		if data, err := requestData(spec, "", pairs); err == nil {
			t.Errorf("%q: got %v, want an error", pairs, data)
		}
	}
}

// Every field of every request can be described, and a value of its kind is read.
func TestEveryFieldReads(t *testing.T) {
	for _, s := range schemas.All() {
		for _, f := range requestFields(s) {
			value, _, _ := f.describe()
			example := map[string]string{"size": "1MiB", "seconds, or 90s": "90s", "milliseconds, or 90s": "90s", "true|false": "true", "number": "7"}[value]
			if example == "" {
				example = "a"
			}
			if value == "object" {
				continue // by its fields
			}
			if _, err := f.read(example, false); err != nil {
				t.Errorf("%s.%s (%s): %v", s.Action, f.name, value, err)
			}
		}
	}
}

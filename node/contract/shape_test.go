package contract

import (
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"
)

// shapes are the contract's types and replies, field by field: name:kind, with a question
// mark where a field may be absent. Kinds: s string, i integer, f number, b boolean, t time
// (RFC 3339, UTC), o object, n number or null, any other name a shape of this table; [] before it is a list,
// {} a map from strings.
var shapes = map[string]string{
	"device": "device_id:s type:s name:s driver:s uuid:s simulated:b granularity_bytes:i peers:[]s numa_node:i health:s health_reasons:[]s",
	"memory_info": `device_id:s total_memory:i physical_memory:i used_memory:i available_memory:i free_memory:i reserved_memory:i
		revoking_memory:i zombie_memory:i foreign_memory:i pooled_memory:i reclaimable_memory:i model_memory:i usage_percentage:f
		fragmentation_percentage:f largest_grantable_bytes:i drift_bytes:i type:s health:s observed_at:t? last_updated:t`,
	"owner":  "tenant:s user:s? session_id:s? pid:i?",
	"mapper": "pid:i session_id:s mode:s",
	"allocation": `allocation_id:s node:s device_id:s size_bytes:i granted_bytes:i allocation_type:s class:s alignment:i purpose:s persistent:b
		priority:i status:s owner:owner model_name:s? mapped_by:[]mapper lease_expires_at:t? created_at:t timestamp:t last_used:t`,
	"handle": "kind:s node:s data_socket:s claim:s claim_expires_at:t size_bytes:i segment_count:i",
	"tensor": "name:s dtype:s shape:[]i segment:i offset:i size_bytes:i",
	"usage_stats": `peak_memory:i allocation_count:i model_count:i grants_total:i releases_total:i refusals_total:i evictions_total:i
		queue_length:i average_grant_ms:f uptime_seconds:f`,
	"fragmentation": "fragmentation_percentage:f largest_free_bytes:i free_bytes:i free_blocks:i segments:i internal_waste_bytes:i",
	"share":         "name:s bytes:i count:i",
	"process":       "pid:i bytes:i count:i",
	"holder":        "owner:s bytes:i",
	"pressure": `device_id:s tenant:s? pressure_level:s previous_level:s cause:s sequence:i episode_id:s total_memory:i used_memory:i
		available_memory:i reserved_memory:i foreign_memory:i zombie_memory:i reclaimable_memory:i deficit_bytes:i target_bytes:i
		largest_grantable_bytes:i utilization_percentage:f model_utilization_percentage:f trend_bytes_per_second:f exhaustion_seconds:f?
		quality:s recommended_actions:[]s top_holders:[]holder trigger_request_id:s? observed_at:t? reminder_sequence:i?`,
	"cost":      "disk:f ram:f",
	"residency": "device_id:s tier:s size_bytes:i allocation_id:s",
	"model": `name:s version:s path:s content_id:s type:s shared:b pinned:b state:s? residency:[]residency size_bytes:i tensor_count:i readers:i
		last_used:t loads:i load_cost_ms:cost tenant:s tensors:[]tensor?`,
	"operation_error": "error_code:s error_message:s status_code:i details:o?",
	"operation": `operation_id:s request_id:s action:s status:s position:i bytes_done:i bytes_total:i progress_percentage:f
		throughput_bytes_per_second:f estimated_ms:f reason:s? result:o? error:operation_error?`,
	"eviction": "model:s tier:s freed_bytes:i reload_cost_ms:f",
	"plan":     "outcome:s position:i evict:[]eviction reason:s estimated_ms:f",
	"waiting":  "operation_id:s tenant:s device_id:s size_bytes:i priority:i position:i waits_for:s deadline:t",
	"renewal":  "allocation_id:s? reference_id:s? lease_expires_at:t",
	"model_memory": `memory_usage_bytes:i memory_usage_mb:f memory_limit_bytes:i memory_limit_mb:f available_memory_bytes:i
		available_memory_mb:f model_count:i`,
	"threshold":     "enter:f leave:f",
	"tenant_limits": "name:s floor_bytes:i soft_bytes:i hard_bytes:i weight:f",
	"thresholds":    "moderate:threshold high:threshold critical:threshold",

	"dry_run": "plan:plan",
	"pending": "status:s operation_id:s position:i estimated_ms:f reason:s replayed:b?",

	"device_status": `device_id:s memory_info:memory_info usage_stats:usage_stats? allocations:[]allocation next_cursor:s?
		fragmentation:fragmentation? model_memory:model_memory health_score:f last_updated:t`,
	"device_usage": `device_id:s memory_info:memory_info peak_memory:i allocation_count:i model_count:i by_class:[]share by_tenant:[]share
		by_process:[]process`,
	"warning": "code:s severity:s device_id:s? subject:s? text:s fix:s since:t",
	"history": `event:s allocation_id:s device_id:s tenant:s size_bytes:i granted_bytes:i? class:s? reason:s? timestamp:t`,

	"reply/get_status": `device_id:s memory_info:memory_info usage_stats:usage_stats? allocations:[]allocation next_cursor:s?
		fragmentation:fragmentation? model_memory:model_memory health_score:f last_updated:t devices:[]device_status?
		warnings:[]warning`,
	"reply/get_usage":       "devices:[]device_usage",
	"reply/get_allocations": "allocations:[]allocation next_cursor:s?",
	"reply/get_allocation":  "allocation:allocation history:[]history?",
	"reply/allocate": `status:s replayed:b? success:b device_id:s allocation_id:s allocation:allocation allocation_time_ms:f queued_ms:f
		evicted:[]eviction available_memory_bytes:i utilization_percentage:f message:s allocated_at:t handle:handle?`,
	"reply/deallocate": `status:s replayed:b? success:b freed_bytes:i confirmed:b zombie_bytes:i available_memory_bytes:i
		utilization_percentage:f`,
	"reply/get_handle":       "handle:handle",
	"reply/renew":            "status:s replayed:b? renewed:[]renewal",
	"reply/get_operation":    "operation:operation",
	"reply/cancel_operation": "status:s replayed:b? operation:operation",
	"reply/get_queue":        "waiting:[]waiting",
	"reply/set_limits": `status:s replayed:b? device_id:s limit_bytes:i model_limit_bytes:i model_limit_mb:f reserve_bytes:i
		thresholds:thresholds tenant:tenant_limits?`,
	"reply/load_model": `status:s replayed:b? loaded:b model:model allocation_ids:[]s reference_id:s? tier:s load_time_ms:f throughput_bytes_per_second:f
		source_tier:s handle:handle? evicted:[]eviction`,
	"reply/unload_model":  "status:s replayed:b? unloaded:b models_unloaded:[]s freed_bytes:i confirmed:b zombie_bytes:i",
	"reply/acquire_model": "status:s replayed:b? reference_id:s lease_expires_at:t? model:model",
	"reply/release_model": "status:s replayed:b? reference_id:s",
	"reply/get_model_info": `models:[]model next_cursor:s? memory_usage_bytes:i memory_usage_mb:f memory_limit_bytes:i memory_limit_mb:f
		available_memory_bytes:i available_memory_mb:f model_count:i`,
	"reply/model_status": `loaded_models:{}model memory_usage_bytes:i memory_usage_mb:f memory_limit_bytes:i memory_limit_mb:f
		available_memory_bytes:i available_memory_mb:f model_count:i pressure_level:s available_operations:[]s
		optimization_recommendations:[]o last_synchronized:t`,
	"reply/model_optimize": `status:s replayed:b? optimization_triggered:b optimization_strategy:s optimization_started:t
		estimated_duration_seconds:f memory_freed:i memory_freed_bytes:i models_unloaded:[]s performance_impact:impact
		optimization_time_ms:f optimization_details:[]step message:s`,
	"impact":                  "reload_cost_ms:f",
	"reply/optimization_recs": "recommendations:[]recommendation",
	"recommendation":          "kind:s reason:s expected_bytes:i expected_cost_ms:f command:ready",
	"ready":                   "action:s data:o",
	"reply/analytics": `series:[]point peaks:[]peak rates:rates percentiles:durations model_hit_rate:f top_holders:[]holder
		leak_suspects:[]suspect gaps:[]hole model_requests:[]asked what_if:[]what_if`,
	"hole":  "from:t to:t",
	"asked": "device_id:s from:t to:t requests:i models:i loads:i hit_rate:f reload_seconds:f",
	"what_if": `device_id:s limit_bytes:i delta_bytes:i model_bytes:i requests:i loads:i hit_rate:f reload_seconds:f saved_seconds:f
		unserved:i`,
	"point":                 "device_id:s timestamp:t used_memory:i available_memory:i pressure_level:s",
	"peak":                  "device_id:s used_memory:i timestamp:t",
	"rates":                 "grants_per_second:f releases_per_second:f refusals_per_second:f evictions_per_second:f",
	"durations":             "grant:percentiles queue:percentiles load:percentiles",
	"percentiles":           "count:i p50_ms:f p90_ms:f p99_ms:f max_ms:f",
	"suspect":               "owner:s kind:s bytes:i allocations:i growth_bytes_per_hour:f oldest_unused_seconds:f age_seconds:f reason:s fix:s allocation_ids:[]s",
	"reply/optimize":        "status:s replayed:b? before:memory_info after:memory_info freed_bytes:i moved_bytes:i? steps:[]step",
	"reply/cleanup":         "status:s replayed:b? freed_bytes:i models_unloaded:[]s",
	"reply/clear":           "status:s replayed:b? cleared_bytes:i throughput_bytes_per_second:f duration_ms:f",
	"reply/copy":            "status:s replayed:b? copied_bytes:i duration_ms:f throughput_bytes_per_second:f",
	"reply/transfer":        "status:s replayed:b? operation:operation allocation_id:s transfer_id:s",
	"reply/get_transfer":    "operation:operation",
	"reply/cancel_transfer": "status:s replayed:b? operation:operation",
	"broken":                "fragmentation_percentage:f largest_free_bytes:i segments:i",
	"reply/defragment": `status:s replayed:b? before:broken after:broken moved_bytes:i released_bytes:i segments_released:i duration_ms:f
		efficiency:n`,
	"reply/get_pressure": "pressure:pressure? devices:[]pressure? tenant_pressure:[]pressure?",
	"reply/list_devices": "devices:[]device",

	"item": `event:s allocation_id:s? operation_id:s? request_id:s? device_id:s tenant:s size_bytes:i granted_bytes:i? class:s? purpose:s?
		model_name:s? session_id:s? pid:i? position:i? queued_ms:f? reason:s? error_code:s? timestamp:t`,
	"event/allocation":      "items:[]item",
	"event/pressure":        "pressure",
	"event/tenant_pressure": "pressure",
	"event/model": `name:s version:s? content_id:s? tenant:s device_id:s tier:s? source_tier:s? state:s? request_id:s? operation_id:s?
		size_bytes:i bytes_done:i? bytes_total:i? progress_percentage:f? throughput_bytes_per_second:f? duration_ms:f? freed_bytes:i?
		readers:i? reason:s? error_code:s? error_message:s?`,
	"step": "kind:s subject:s reason:s freed_bytes:i moved_bytes:i? duration_ms:f",
	"event/optimization": `optimization_id:s device_id:s reason:s request_id:s? episode_id:s? strategy:s? target_bytes:i freed_bytes:i
		evicted:[]eviction steps:[]step? duration_ms:f? shortfall_bytes:i?`,
	"event/transfer": "operation",
	"event/command":  "request_id:s action:s tenant:s result:o? error_code:s? error_message:s? status_code:i? details:o?",
	"event/node":     "version:s? pid:i? device_id:s? drift_bytes:i? reason:s? restored:o? devices:[]device? warning:o?",
}

// obj is a decoded object: strings, int64, float64, bool, nil, []any and obj.
type obj = map[string]any

// misfit says what of a value is not as a shape has it; "" for nothing.
func misfit(shape, path string, v any) string {
	text, known := shapes[shape]
	if !known {
		return fmt.Sprintf("%s: no shape %q in the table", path, shape)
	}
	m, ok := v.(obj)
	if !ok {
		return fmt.Sprintf("%s is %T, not an object", path, v)
	}
	if _, alias := shapes[text]; alias {
		return misfit(text, path, v)
	}
	seen := map[string]bool{}
	for _, f := range strings.Fields(text) {
		name, kind, _ := strings.Cut(f, ":")
		kind, optional := strings.CutSuffix(kind, "?")
		seen[name] = true
		x, there := m[name]
		if !there && optional {
			continue
		}
		if !there {
			return fmt.Sprintf("%s has no %s", path, name)
		}
		if s := misfitKind(kind, path+"."+name, x); s != "" {
			return s
		}
	}
	var more []string
	for name := range m {
		if !seen[name] {
			more = append(more, name)
		}
	}
	if sort.Strings(more); len(more) > 0 {
		return fmt.Sprintf("%s has %v, which the contract lacks", path, more)
	}
	return ""
}

func misfitKind(kind, path string, v any) string {
	if of, list := strings.CutPrefix(kind, "[]"); list {
		l, ok := v.([]any)
		if !ok {
			return fmt.Sprintf("%s is %T, not a list", path, v)
		}
		for i, x := range l {
			if s := misfitKind(of, fmt.Sprintf("%s[%d]", path, i), x); s != "" {
				return s
			}
		}
		return ""
	}
	if of, dict := strings.CutPrefix(kind, "{}"); dict {
		m, ok := v.(obj)
		if !ok {
			return fmt.Sprintf("%s is %T, not a map", path, v)
		}
		for k, x := range m {
			if s := misfitKind(of, path+"."+k, x); s != "" {
				return s
			}
		}
		return ""
	}
	ok := false
	switch kind {
	case "s":
		_, ok = v.(string)
	case "i":
		_, ok = v.(int64)
	case "f":
		_, whole := v.(int64)
		_, ok = v.(float64)
		ok = ok || whole
	case "n":
		ok = v == nil || misfitKind("f", path, v) == ""
	case "b":
		_, ok = v.(bool)
	case "o":
		_, ok = v.(obj)
	case "t":
		s, text := v.(string)
		at, err := time.Parse(time.RFC3339Nano, s)
		ok = text && err == nil && strings.HasSuffix(s, "Z") && at.Year() > 2000
	default:
		return misfit(kind, path, v)
	}
	if !ok {
		return fmt.Sprintf("%s is %T %v, not of kind %s", path, v, v, kind)
	}
	return ""
}

// TestMisfit: the table can fail.
func TestMisfit(t *testing.T) {
	good := func() obj { return obj{"name": "a", "bytes": int64(1), "count": int64(2)} }
	for name, change := range map[string]func(obj){
		"missing":    func(m obj) { delete(m, "bytes") },
		"unknown":    func(m obj) { m["colour"] = "red" },
		"wrong kind": func(m obj) { m["count"] = 1.5 },
		"null":       func(m obj) { m["name"] = nil },
	} {
		m := good()
		if s := misfit("share", "share", m); s != "" {
			t.Fatal(s)
		}
		if change(m); misfit("share", "share", m) == "" {
			t.Errorf("%s: %v fits", name, m)
		}
	}
	if misfitKind("t", "at", "2024-01-02T03:04:05+01:00") == "" {
		t.Error("a time that is not UTC fits")
	}
}

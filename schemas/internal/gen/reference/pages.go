package main

import (
	"fmt"
	"strings"

	"github.com/isobar-project/isobar/schemas"
)

// errorsPage is the error table, who answers what, and what became of the older names.
func errorsPage() []byte {
	var p page
	p.line("# Errors\n\n%s\n", notice)
	p.line("A failure is answered `{\"success\": false, \"request_id\", \"timestamp\", \"node\", \"error_code\", \"error_message\", \"status_code\", \"details\"}`, with the")
	p.line("NATS headers `Nats-Service-Error` (code and message) and `Nats-Service-Error-Code` (the status code). Branch on `error_code`; the message is for people,")
	p.line("`details` for programs.\n")
	p.line("| error_code | status_code | when | answers |\n|---|---|---|---|")
	for _, c := range schemas.Codes() {
		p.line("| `%s` | %d | %s | %s |", c.Code, c.Status, cell(c.When), answers(c.Code))
	}
	p.line("\n## Older names\n")
	p.line("The design documents before this contract had four names for everything that can go wrong. A client that still branches on them can map them so:\n")
	p.line("| older name | was answered by | now |\n|---|---|---|")
	for _, o := range schemas.OlderNames() {
		codes := make([]string, len(o.Codes))
		for i, c := range o.Codes {
			codes[i] = fmt.Sprintf("`%s` (%d)", c, c.Status())
		}
		p.line("| `%s` | %s | %s |", o.Name, cell(o.Of), strings.Join(codes, ", "))
	}
	p.line("\nThe way back: of a command in the second column, every code that its row does not name is what its older name meant too; it says more.")
	return []byte(p.String())
}

// everyAction is said of a code that can answer each of them.
const everyAction = "every action"

// answers says which actions a code can answer.
func answers(c schemas.Code) string {
	var list []string
	for _, s := range schemas.All() {
		for _, e := range s.Errors() {
			if e == c {
				list = append(list, string(s.Action))
			}
		}
	}
	switch {
	case len(list) == len(schemas.All()):
		return everyAction
	case len(list) == 0:
		return "`memory.command` and stdio"
	case len(list) > len(schemas.All())/2:
		return fmt.Sprintf("%d actions: [actions.md](actions.md)", len(list))
	}
	return strings.Join(list, ", ")
}

// older is one row of the names that services of the earlier C# design meet.
type older struct {
	methods, routes string
	actions         []schemas.Action
}

var olderTable = []older{
	{"GetMemoryStatusAsync, GetMemoryStatusDeviceAsync(deviceId)", "/api/memory/status, /api/memory/status/{deviceId}", []schemas.Action{schemas.ActionGetStatus}},
	{"GetMemoryUsageAsync, GetMemoryUsageAsync(deviceId)", "/api/memory/usage, /api/memory/usage/{deviceId}", []schemas.Action{schemas.ActionGetUsage}},
	{"GetMemoryAllocationsAsync, GetMemoryAllocationsAsync(deviceId)", "/api/memory/allocations, /api/memory/allocations/device/{deviceId}", []schemas.Action{schemas.ActionGetAllocations}},
	{"GetMemoryAllocationAsync(allocationId)", "/api/memory/allocation/{allocationId}", []schemas.Action{schemas.ActionGetAllocation}},
	{"PostMemoryAllocateAsync, PostMemoryAllocateAsync(deviceId)", "/api/memory/allocations/allocate", []schemas.Action{schemas.ActionAllocate}},
	{"DeleteMemoryDeallocateAsync, DeleteMemoryAllocationAsync", "DELETE /api/memory/allocation/{allocationId}", []schemas.Action{schemas.ActionDeallocate}},
	{"DeleteMemoryCleanup(deviceId)", "", []schemas.Action{schemas.ActionCleanup}},
	{"PostMemoryClearAsync, PostMemoryClearAsync(deviceId)", "/api/memory/operations/clear", []schemas.Action{schemas.ActionClear}},
	{"PostMemoryDefragmentAsync, PostMemoryDefragmentAsync(deviceId)", "/api/memory/operations/defragment", []schemas.Action{schemas.ActionDefragment}},
	{"PostMemoryOptimizeAsync", "", []schemas.Action{schemas.ActionOptimize}},
	{"PostMemoryTransferAsync, GetMemoryTransferAsync", "/api/memory/transfer, /api/memory/transfer/{transferId}", []schemas.Action{schemas.ActionTransfer, schemas.ActionGetTransfer}},
	{"PostMemoryCopyAsync", "", []schemas.Action{schemas.ActionCopy}},
	{"GetModelMemoryStatusAsync", "", []schemas.Action{schemas.ActionModelStatus}},
	{"TriggerModelMemoryOptimizationAsync", "", []schemas.Action{schemas.ActionModelOptimize}},
	{"GetMemoryPressureAsync", "", []schemas.Action{schemas.ActionGetPressure}},
	{"GetMemoryAnalyticsAsync", "", []schemas.Action{schemas.ActionAnalytics}},
	{"GetMemoryOptimizationAsync", "", []schemas.Action{schemas.ActionOptimizationRecs}},
}

// workerTable is the same for the commands of the earlier workers.
var workerTable = []struct {
	command string
	action  schemas.Action
}{
	{"load_model", schemas.ActionLoadModel},
	{"unload_model", schemas.ActionUnloadModel},
	{"get_model_info", schemas.ActionGetModelInfo},
	{"optimize_memory", schemas.ActionModelOptimize},
	{"get_status", schemas.ActionModelStatus},
	{"cleanup", schemas.ActionCleanup},
}

// olderModels are the actions that the earlier design had request models for, whose fields
// are served under their snake_case names.
var olderModels = []schemas.Action{schemas.ActionAllocate, schemas.ActionGetStatus, schemas.ActionOptimize, schemas.ActionModelOptimize}

// olderNamesPage maps the older methods, routes, worker commands and fields to ours.
func olderNamesPage() []byte {
	var p page
	p.line("# Older names\n\n%s\n", notice)
	p.line("Services of the earlier C# design meet these names. A field's name is the PascalCase of ours, and back: `SizeBytes` is `size_bytes`. Null and, for")
	p.line("optional fields, an empty string are as good as absent, so that a serializer need not be taught to leave them out.\n")
	p.line("| C# method | REST route | action | subject |\n|---|---|---|---|")
	for _, o := range olderTable {
		p.line("| %s | %s | %s | %s |", code(o.methods), code(o.routes), actionLinks(o.actions), subjects(o.actions))
	}
	p.line("\n## Commands of the earlier workers\n\n| command | action | subject |\n|---|---|---|")
	for _, o := range workerTable {
		p.line("| `%s` | %s | %s |", o.command, actionLinks([]schemas.Action{o.action}), subjects([]schemas.Action{o.action}))
	}
	p.line("\n## Other names that are served\n\n| older name | of | is |\n|---|---|---|")
	for _, s := range schemas.All() {
		for _, a := range s.Aliases {
			p.line("| `%s` | subject | `%s` |", schemas.CommandSubject(a), schemas.CommandSubject(s.Action))
		}
		for i := range s.Request.NumField() {
			f := s.Request.Field(i)
			if alias := f.Tag.Get("alias"); alias != "" {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				p.line("| `%s` | field of %s | `%s` |", alias, s.Action, name)
			}
		}
	}
	p.line("\n## Request models\n\n| C# property | field | action |\n|---|---|---|")
	for _, a := range olderModels {
		s, _ := schemas.Lookup(a)
		for i := range s.Request.NumField() {
			name, _, _ := strings.Cut(s.Request.Field(i).Tag.Get("json"), ",")
			p.line("| `%s` | `%s` | %s |", schemas.Pascal(name), name, a)
		}
	}
	p.line("\nErrors: see the [older error names](errors.md#older-names).")
	return []byte(p.String())
}

// code puts each of a list in backquotes.
func code(list string) string {
	if list == "" {
		return ""
	}
	return "`" + strings.Join(strings.Split(list, ", "), "`, `") + "`"
}

func actionLinks(list []schemas.Action) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = fmt.Sprintf("[%s](actions.md#%s)", a, a)
	}
	return strings.Join(out, ", ")
}

func subjects(list []schemas.Action) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = "`" + schemas.CommandSubject(a) + "`"
	}
	return strings.Join(out, ", ")
}

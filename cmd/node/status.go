package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/isobar-project/isobar/bus/client"
	"github.com/isobar-project/isobar/codec"
	"github.com/isobar-project/isobar/node"
	"github.com/isobar-project/isobar/schemas"
)

// statusCommand shows a node.
type statusCommand struct {
	JSON  bool `name:"json" help:"For programs: the replies of get_status, list_devices, get_model_info, get_queue and get_pressure."`
	Limit int  `name:"limit" default:"20" placeholder:"COUNT" help:"How many grants and models to show."`
	connection
}

// Help is the long help.
func (statusCommand) Help() string {
	return `"used" is everything that is not free for grants, others' use included; "available" what a request can get when room is made for it; "warm" is idle memory that is kept ready and given up before anything is refused. With several nodes and no --node, the first to answer is shown.

    isobar status
    isobar status --node gpu-host-1 --json`
}

// nodeStatus is everything that status shows.
type nodeStatus struct {
	Node     string                    `json:"node"`
	Status   schemas.GetStatusReply    `json:"status"`
	Devices  schemas.ListDevicesReply  `json:"devices"`
	Models   schemas.GetModelInfoReply `json:"models"`
	Queue    schemas.GetQueueReply     `json:"queue"`
	Pressure schemas.GetPressureReply  `json:"pressure"`
}

// Run implements the command.
func (s *statusCommand) Run(k *call) error {
	if s.Limit < 1 || s.Limit > 1000 {
		return usage("--limit: %d is not from 1 to 1000", s.Limit)
	}
	conn, err := s.open(k, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := k.interruptible()
	defer stop()
	st, err := readStatus(ctx, conn, s.Node, s.Limit)
	if err != nil {
		return err
	}
	if s.JSON {
		_, err = fmt.Fprintf(k.out, "%s\n", codec.Append(nil, codec.JSON, st))
		return err
	}
	var b strings.Builder
	st.write(&b, k.now())
	_, err = io.WriteString(k.out, b.String())
	return err
}

// readStatus asks one node for everything.
func readStatus(ctx context.Context, conn *client.Client, name string, limit int) (*nodeStatus, error) {
	var st nodeStatus
	// One call through the client first: it says in the contract's words what is wrong.
	if err := conn.Call(ctx, schemas.ActionListDevices, nil, &st.Devices); err != nil {
		return nil, err
	}
	if name == "" {
		var err error
		if name, err = whoAnswers(ctx, conn); err != nil {
			return nil, err
		}
	}
	st.Node = name
	at := client.WithNode(name)
	for _, ask := range []struct {
		action         schemas.Action
		request, reply any
	}{
		{schemas.ActionListDevices, nil, &st.Devices},
		{schemas.ActionGetStatus, &schemas.GetStatusRequest{Limit: &limit}, &st.Status},
		{schemas.ActionGetModelInfo, &schemas.GetModelInfoRequest{Limit: &limit}, &st.Models},
		{schemas.ActionGetQueue, nil, &st.Queue},
		{schemas.ActionGetPressure, nil, &st.Pressure},
	} {
		if err := conn.Call(ctx, ask.action, ask.request, ask.reply, at); err != nil {
			return nil, err
		}
	}
	return &st, nil
}

// whoAnswers is the name of a node that answers. The name stands in the envelope,
// which the client's calls do not show.
func whoAnswers(ctx context.Context, conn *client.Client) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, schemas.DefaultWaitMs*time.Millisecond)
	defer cancel()
	answer, err := conn.Conn().RequestWithContext(ctx, schemas.CommandSubject(schemas.ActionListDevices), nil)
	if err != nil {
		return "", err
	}
	header, err := codec.DecodeReply(answer.Data, codec.JSON, nil)
	return header.Node, err
}

func (s *nodeStatus) write(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "Node %s\n\nDEVICES\n", s.Node)
	s.writeDevices(w)
	s.writeModels(w, now)
	s.writeGrants(w, now)
	s.writeQueue(w, now)
	s.writePressure(w)
	s.writeWarnings(w, now)
}

func (s *nodeStatus) writeDevices(w io.Writer) {
	t := table{indent: "  "}
	t.head("device", "type", "pressure", "used", "of limit", "", "available", "free", "warm", "models", "others", "allocations", "health", "")
	t.alignRight(3, 4, 5, 6, 7, 8, 9, 10, 11)
	simulated := map[string]string{}
	for _, d := range s.Devices.Devices {
		if d.Simulated {
			simulated[d.DeviceID] = "simulated: its bytes are main memory"
		}
	}
	for _, d := range s.Status.Devices {
		m := d.MemoryInfo
		grants := "-"
		if d.UsageStats != nil {
			grants = fmt.Sprint(d.UsageStats.AllocationCount)
		}
		t.row(d.DeviceID, string(m.Type), s.level(d.DeviceID), node.HumanSize(m.UsedMemory), node.HumanSize(m.TotalMemory),
			fmt.Sprintf("%.0f %%", m.UsagePercentage), node.HumanSize(m.AvailableMemory), node.HumanSize(m.FreeMemory),
			node.HumanSize(m.PooledMemory), node.HumanSize(m.ModelMemory), node.HumanSize(m.ForeignMemory), grants, string(m.Health), simulated[d.DeviceID])
	}
	t.write(w)
}

// level is the pressure level of a device.
func (s *nodeStatus) level(device string) string {
	for _, p := range s.pressures() {
		if p.DeviceID == device {
			return string(p.PressureLevel)
		}
	}
	return "-"
}

func (s *nodeStatus) pressures() []schemas.Pressure {
	if s.Pressure.Pressure != nil {
		return append([]schemas.Pressure{*s.Pressure.Pressure}, s.Pressure.Devices...)
	}
	return s.Pressure.Devices
}

func (s *nodeStatus) writeModels(w io.Writer, now time.Time) {
	fmt.Fprintln(w, "\nMODELS")
	if len(s.Models.Models) == 0 {
		fmt.Fprintln(w, "  none")
		return
	}
	t := table{indent: "  "}
	t.head("model", "state", "on", "size", "tensors", "readers", "last used", "")
	t.alignRight(3, 4, 5)
	for _, m := range s.Models.Models {
		var on, flags []string
		for _, r := range m.Residency {
			on = append(on, r.DeviceID)
		}
		if m.Pinned {
			flags = append(flags, "pinned")
		}
		if m.Shared {
			flags = append(flags, "shared")
		}
		t.row(m.Name, string(m.State), strings.Join(on, ", "), node.HumanSize(m.SizeBytes), fmt.Sprint(m.TensorCount), fmt.Sprint(m.Readers),
			ago(now, m.LastUsed), strings.Join(flags, ", "))
	}
	t.write(w)
	s.more(w, s.Models.NextCursor, "get_model_info")
}

// grants are the grants shown, models' own left out: they stand with the models.
func (s *nodeStatus) grants() []schemas.Allocation {
	all := s.Status.Allocations
	if len(all) == 0 {
		for _, d := range s.Status.Devices {
			all = append(all, d.Allocations...)
		}
	}
	var out []schemas.Allocation
	for _, a := range all {
		if a.Class != schemas.ClassWeights {
			out = append(out, a)
		}
	}
	return out
}

func (s *nodeStatus) writeGrants(w io.Writer, now time.Time) {
	fmt.Fprintln(w, "\nGRANTS")
	grants := s.grants()
	if len(grants) == 0 {
		fmt.Fprintln(w, "  none")
	} else {
		t := table{indent: "  "}
		t.head("allocation", "device", "size", "class", "status", "owner", "mapped by", "purpose", "made", "lease")
		t.alignRight(2)
		for _, a := range grants {
			var by []string
			for _, m := range a.MappedBy {
				by = append(by, fmt.Sprint(m.PID))
			}
			lease := ""
			if a.LeaseExpiresAt != nil {
				lease = "ends in " + shortDuration(a.LeaseExpiresAt.Sub(now))
			}
			class := string(a.Class)
			if a.Persistent {
				class += ", persistent"
			}
			t.row(a.AllocationID, a.DeviceID, node.HumanSize(a.GrantedBytes), class, string(a.Status), ownerText(a.Owner),
				strings.Join(by, ", "), a.Purpose, ago(now, a.CreatedAt), lease)
		}
		t.write(w)
	}
	cursor := s.Status.NextCursor
	for _, d := range s.Status.Devices {
		cursor += d.NextCursor
	}
	s.more(w, cursor, "get_allocations")
}

func (s *nodeStatus) more(w io.Writer, cursor, action string) {
	if cursor != "" {
		fmt.Fprintf(w, "  … and more: raise --limit, or `isobar call %s --table`\n", action)
	}
}

func ownerText(o schemas.Owner) string {
	s := o.Tenant
	if o.User != "" {
		s += "/" + o.User
	}
	if o.PID != 0 {
		s += fmt.Sprintf(" pid %d", o.PID)
	}
	return s
}

func ago(now, then time.Time) string {
	if then.IsZero() {
		return "never"
	}
	return shortDuration(max(0, now.Sub(then))) + " ago"
}

func (s *nodeStatus) writeQueue(w io.Writer, now time.Time) {
	if len(s.Queue.Waiting) == 0 {
		return
	}
	fmt.Fprintln(w, "\nQUEUE")
	t := table{indent: "  "}
	t.head("place", "device", "size", "tenant", "priority", "waits for", "at most", "operation")
	t.alignRight(0, 2, 4)
	for _, q := range s.Queue.Waiting {
		t.row(fmt.Sprint(q.Position), q.DeviceID, node.HumanSize(q.SizeBytes), q.Tenant, fmt.Sprint(q.Priority), q.WaitsFor,
			shortDuration(q.Deadline.Sub(now)), q.OperationID)
	}
	t.write(w)
}

func (s *nodeStatus) writePressure(w io.Writer) {
	t := table{indent: "  "}
	t.head("device", "level", "cause", "to release", "deficit", "largest grant", "what helps")
	t.alignRight(3, 4, 5)
	for _, p := range s.pressures() {
		if p.PressureLevel == schemas.PressureLow {
			continue
		}
		t.row(p.DeviceID, string(p.PressureLevel), string(p.Cause), sizeOrNothing(p.TargetBytes), sizeOrNothing(p.DeficitBytes),
			node.HumanSize(p.LargestGrantableBytes), strings.Join(p.RecommendedActions, "; "))
	}
	if len(t.rows) > 0 {
		fmt.Fprintln(w, "\nPRESSURE")
		t.write(w)
	}
}

func sizeOrNothing(n int64) string {
	if n == 0 {
		return ""
	}
	return node.HumanSize(n)
}

// writeWarnings lists what somebody should look at, each with what to do about it.
func (s *nodeStatus) writeWarnings(w io.Writer, now time.Time) {
	if len(s.Status.Warnings) == 0 {
		return
	}
	fmt.Fprintln(w, "\nWARNINGS")
	for _, x := range s.Status.Warnings {
		fmt.Fprintf(w, "  %-8s  %s (%s, since %s)\n            fix: %s\n", x.Severity, warningText(&x), x.Code, ago(now, x.Since), x.Fix)
	}
}

// warningText is a warning's text with what it is about.
func warningText(x *schemas.HealthWarning) string {
	about := x.DeviceID
	if about == "" {
		about = x.Subject
	}
	if about == "" {
		return x.Text
	}
	return about + ": " + x.Text
}

package metrics_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/isobar-project/isobar/metrics"
	"github.com/isobar-project/isobar/schemas"
)

func ExampleNode_Append() {
	n := metrics.NewNode(metrics.Config{Node: "here", Version: "1.2.3", GoVersion: "go1.26", Devices: []string{"ram-0"}})
	n.Command(schemas.ActionAllocate, "", 30*time.Microsecond)
	n.Command(schemas.ActionAllocate, schemas.CodeOutOfMemory, time.Second)
	for line := range strings.Lines(string(n.Append(nil, &metrics.Snapshot{}))) {
		if strings.HasPrefix(line, "isobar_commands_total") {
			fmt.Print(line)
		}
	}
	// Output:
	// isobar_commands_total{action="allocate",code="OK"} 1
	// isobar_commands_total{action="allocate",code="OUT_OF_MEMORY"} 1
}

package admission_test

import (
	"fmt"

	"github.com/isobar-project/isobar/admission"
)

// Two tenants share what becomes free by their weights, whoever asks for more.
func Example() {
	weight := map[string]float64{"render": 2, "chat": 1}
	line := admission.NewLine[string](func(tenant string) float64 { return weight[tenant] })
	age := uint64(0)
	ask := func(tenant, what string, priority int) {
		age++
		line.Add(&admission.Spot[string]{Of: what, Tenant: tenant, Priority: priority, Age: age, Bytes: 1 << 30})
	}
	ask("chat", "chat 1", 0)
	ask("chat", "chat 2", 0)
	ask("chat", "chat 3, urgent", 1)
	ask("render", "render 1", 0)
	ask("render", "render 2", 0)
	for line.Len() > 0 {
		next := line.Head()
		fmt.Println(next.Of)
		line.Serve(next)
	}
	// The one at the head lacks 1 GiB, and 4 GiB are on their way: so much may be taken now.
	fmt.Println(admission.Slack(1<<30, []int64{4 << 30}, nil)>>30, "GiB may pass")
	// Output:
	// chat 3, urgent
	// render 1
	// render 2
	// chat 1
	// chat 2
	// 3 GiB may pass
}

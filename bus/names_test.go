package bus

import (
	"reflect"
	"strings"
	"testing"

	"github.com/isobar-project/isobar/schemas"
)

// Every id and device of every request is known to those who look for its node.
func TestEveryNameIsKnown(t *testing.T) {
	others := map[string]bool{"SessionID": true, "RequestID": true, "PID": true}
	for _, s := range schemas.All() {
		r := reflect.TypeOf(s.NewRequest()).Elem()
		for i := range r.NumField() {
			name := r.Field(i).Name
			if _, known := namedFields[name]; !known && !others[name] && (strings.HasSuffix(name, "ID") || strings.HasSuffix(name, "IDs")) {
				t.Errorf("%s.%s may carry a node: say so in namedFields, or here", r.Name(), name)
			}
		}
	}
}

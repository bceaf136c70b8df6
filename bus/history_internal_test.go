package bus

import "testing"

// Whatever the tenants are, all streams together take what is allowed.
func TestTheHistoryKeepsItsBounds(t *testing.T) {
	for _, tenants := range [][]string{nil, {"a"}, {"a", "b", "c"}} {
		c := HistoryConfig{MaxBytes: 1 << 20, Tenants: tenants}
		all, each := c.share()
		if sum := all + int64(len(tenants))*each; sum > c.MaxBytes || sum < c.MaxBytes-3 || all < c.MaxBytes*3/4 {
			t.Errorf("%d tenants: %d bytes and %d each", len(tenants), all, each)
		}
	}
}

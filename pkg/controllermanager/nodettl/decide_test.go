package nodettl

import "testing"

func TestDecide(t *testing.T) {
	step := 0
	for _, c := range []struct{ nodes, seconds int }{{1, 0}, {100, 0}, {101, 15}, {95, 15}, {89, 0}, {5000, 300}, {1799, 60}, {20000, 600}, {0, 0}} {
		if step = decide(step, c.nodes); steps[step].seconds != c.seconds {
			t.Errorf("%d nodes: %d s, not %d", c.nodes, steps[step].seconds, c.seconds)
		}
	}
}

package nodettl

import "math"

// step is how long nodes may keep things where there are from least to most nodes. Steps overlap, so that a cluster at a
// bound does not change its mind all the time.
type step struct{ least, most, seconds int }

var steps = []step{{0, 100, 0}, {90, 500, 15}, {450, 1000, 30}, {900, 2000, 60}, {1800, 10000, 300}, {9000, math.MaxInt, 600}}

// decide answers the step for a number of nodes; the one that holds is kept as long as it fits.
func decide(holds, nodes int) int {
	for nodes > steps[holds].most {
		holds++
	}
	for nodes < steps[holds].least {
		holds--
	}
	return holds
}

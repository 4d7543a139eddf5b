package controllermanager

import "testing"

// TestHeap: a large heap is kept tight, and what a burst left is given back once it is over; a small one is left alone.
func TestHeap(t *testing.T) {
	const mb = 1 << 20
	for _, x := range []struct {
		name      string
		last, now heap
		percent   int
		wasteful  bool
	}{
		{"small", heap{}, heap{live: 20 * mb, objects: 40 * mb, free: 100 * mb}, gcSmall, false},
		{"large and busy", heap{}, heap{live: 200 * mb, objects: 250 * mb, free: 100 * mb, allocated: 50 * mb}, gcLarge, false},
		{"large after a burst", heap{allocated: 900 * mb}, heap{live: 200 * mb, objects: 230 * mb, free: 100 * mb, allocated: 901 * mb}, gcLarge, true},
		{"garbage of a burst", heap{allocated: 900 * mb}, heap{live: 200 * mb, objects: 250 * mb, allocated: 901 * mb}, gcLarge, true},
		{"large and tight", heap{allocated: 900 * mb}, heap{live: 200 * mb, objects: 210 * mb, free: 10 * mb, allocated: 901 * mb}, gcLarge, false},
	} {
		if p, w := x.now.percent(), x.now.wasteful(x.last); p != x.percent || w != x.wasteful {
			t.Errorf("%s: %d %%, wasteful %v", x.name, p, w)
		}
	}
	if h := look(); h.objects == 0 || h.allocated == 0 {
		t.Errorf("nothing is seen: %+v", h)
	}
}

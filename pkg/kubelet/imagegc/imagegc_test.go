package imagegc

import (
	"fmt"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	now := time.Unix(100000, 0)
	ago := func(h int) time.Time { return now.Add(-time.Duration(h) * time.Hour) }
	images := []record{{id: "used", size: 100, used: true, came: ago(99), last: now}, {id: "pinned", size: 100, pinned: true, came: ago(99)}, {id: "old", size: 30, came: ago(50), last: ago(40)},
		{id: "older", size: 30, came: ago(60), last: ago(50)}, {id: "young", size: 30, came: now.Add(-time.Minute)}, {id: "never", size: 30, came: ago(5)}}
	for _, c := range []struct {
		what string
		s    Snapshot
		want string
	}{
		{"there is room", Snapshot{Available: 500}, "[] 0"},
		{"full: the longest unused go until there is enough", Snapshot{Available: 150}, "[never older] 50"},
		{"fuller", Snapshot{Available: 110}, "[never older old] 90"},
		{"never, says the configuration", Snapshot{Available: 0, High: 100}, "[] 0"},
		{"too old in any case", Snapshot{Available: 500, MaxAge: 45 * time.Hour}, "[older] 0"},
		{"pressure takes the young too", Snapshot{Available: 500, All: true}, "[never young older old] 0"},
	} {
		c.s.Now, c.s.Images, c.s.Capacity, c.s.Low, c.s.MinAge = now, images, 1000, 80, 2*time.Minute
		if c.s.High == 0 {
			c.s.High = 85
		}
		p := decide(c.s)
		if got := fmt.Sprint(p.Remove, p.Need); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

package rules

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is put in, changed and taken out, a place's best row is the one that looking at all of them finds; keys with room for less
// than the rows differ by included.
func TestPlaceKeepsTheBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := NewTable(7)
		v := &View{table: table}
		const rows = 600
		for i := range rows {
			table.row(fmt.Sprint("n", i))
		}
		v.seats = make([]seat, rows)
		for r := range v.seats {
			v.seats[r].at = -1
		}
		p := &Place{lead: -1}
		score := rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(mostScore-2, mostScore+5))
		change := func(r int32) {
			s := &v.seats[r]
			s.direct = score.Draw(t, "score")
			table.rows[r].pods = make([]*Pod, rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(mostPods-1, mostPods+2)).Draw(t, "pods"))
			key := keyOf(&table.rows[r], s.direct)
			if s.at >= 0 {
				p.set(s.pos, key)
				return
			}
			s.at, s.pos = 0, p.add(r, key)
		}
		for r := range rapid.Int32Range(0, rows-1).Draw(t, "filled") {
			v.seats[r].direct = int64(r % 4)
			v.seats[r].at, v.seats[r].pos = 0, p.add(r, keyOf(&table.rows[r], v.seats[r].direct))
		}
		for range rapid.IntRange(1, 90).Draw(t, "steps") {
			r := rapid.Int32Range(0, rows-1).Draw(t, "row")
			if s := &v.seats[r]; s.at >= 0 && rapid.Bool().Draw(t, "leaves") {
				for range min(rapid.SampledFrom([]int{1, 1, 20, 300}).Draw(t, "as many"), len(p.rows)) {
					gone := p.rows[len(p.rows)/2]
					if moved := p.remove(v.seats[gone].pos); moved >= 0 {
						v.seats[moved].pos = v.seats[gone].pos
					}
					v.seats[gone].at = -1
				}
			} else {
				change(r)
			}
			if len(p.rows) == 0 || rapid.IntRange(0, 2).Draw(t, "nobody asks") > 0 {
				continue
			}
			best := p.rows[0]
			for i, r := range p.rows {
				if v.seats[r].pos != int32(i) {
					t.Fatalf("row %d stands at %d, not at %d", r, i, v.seats[r].pos)
				}
				if v.better(r, best) {
					best = r
				}
			}
			if got := v.first(p); got != best {
				t.Fatalf("the best of %d rows is %d, not %d", len(p.rows), best, got)
			}
		}
	})
}

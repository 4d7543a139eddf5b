package imagegc

import (
	"sort"
	"time"
)

// record is one image and what is remembered of it.
type record struct {
	id           string
	size         int64
	pinned, used bool
	// came is when it was first seen, last when it was last used; zero is never.
	came, last time.Time
}

// Snapshot is what one decision is made from; sizes in bytes.
type Snapshot struct {
	Now                 time.Time
	Images              []record
	Capacity, Available int64
	High, Low           int
	MinAge, MaxAge      time.Duration
	// All asks for everything unused, however full the disk is.
	All bool
}

// Plan names images to remove, in order; Need is how many bytes that should free, 0 when none are short.
type Plan struct {
	Remove []string
	Need   int64
}

// decide picks unused images, the longest unused first. What is pinned, used or young stays.
func decide(s Snapshot) Plan {
	var p Plan
	var unused []record
	for _, r := range s.Images {
		if !r.pinned && !r.used {
			unused = append(unused, r)
		}
	}
	sort.SliceStable(unused, func(i, j int) bool {
		if a, b := unused[i], unused[j]; !a.last.Equal(b.last) {
			return a.last.Before(b.last)
		} else {
			return a.came.Before(b.came)
		}
	})
	if s.Capacity > 0 && s.High < 100 && (s.Capacity-s.Available)*100 >= int64(s.High)*s.Capacity {
		p.Need = s.Capacity*int64(100-s.Low)/100 - s.Available
	}
	freed := int64(0)
	for _, r := range unused {
		since := r.last
		if r.came.After(since) {
			since = r.came
		}
		age := s.Now.Sub(since)
		switch {
		case s.All:
		case s.MaxAge > 0 && age > s.MaxAge:
		case freed >= p.Need, age < s.MinAge:
			continue
		}
		freed += r.size
		p.Remove = append(p.Remove, r.id)
	}
	return p
}

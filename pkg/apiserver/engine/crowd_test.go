package engine

import (
	"slices"
	"testing"
)

// TestCrowd tells when many come, and once most are gone.
func TestCrowd(t *testing.T) {
	var told []bool
	c := &crowd{tell: func(on bool) { told = append(told, on) }}
	var leave []func()
	for range crowdFrom {
		leave = append(leave, c.join())
	}
	c.join()()
	if !slices.Equal(told, []bool{true}) {
		t.Errorf("of a crowd that came, %v was told", told)
	}
	for _, l := range leave[crowdTo+1:] {
		l()
	}
	if !slices.Equal(told, []bool{true}) {
		t.Errorf("while a crowd goes, %v was told", told)
	}
	for _, l := range leave[:crowdTo+1] {
		l()
	}
	if !slices.Equal(told, []bool{true, false}) || c.n != 0 {
		t.Errorf("of a crowd that went, %v was told; %d are left", told, c.n)
	}
}

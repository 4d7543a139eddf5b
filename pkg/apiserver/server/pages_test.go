package server

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// resident is how much of this program's files is in memory, in KB.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDropProgram gives pages back, and the program goes on.
func TestDropProgram(t *testing.T) {
	before := resident(t)
	if err := dropProgram(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after > before*3/4 {
		t.Errorf("of %d KB there are %d left", before, after)
	}
}

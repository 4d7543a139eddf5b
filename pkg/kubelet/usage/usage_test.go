package usage

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMeasureCountsEachFileOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr", filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	w := measure(dir)
	if w.bytes < 1<<20 || w.bytes > 1<<20+64<<10 || w.inodes != 3 {
		t.Errorf("%d bytes, %d inodes", w.bytes, w.inodes)
	}
}

func TestRate(t *testing.T) {
	r := New(Config{})
	at := time.Unix(100, 0)
	if r.rate("x", at, 1e9) != nil {
		t.Error("one look is no rate")
	}
	if n := r.rate("x", at.Add(2*time.Second), 2e9); n == nil || *n != 5e8 {
		t.Error(n)
	}
	if n := r.rate("x", at.Add(4*time.Second), 0); n != nil {
		t.Error("a counter which began anew has no rate yet:", *n)
	}
}

package statefile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	var got map[string]int
	if ok, err := Read(path, &got); ok || err != nil {
		t.Error("what is not there is read:", ok, err)
	}
	for n := range 3 {
		if err := Write(path, map[string]int{"n": n}); err != nil {
			t.Fatal(err)
		}
		if ok, err := Read(path, &got); !ok || err != nil || got["n"] != n {
			t.Error(got, ok, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Error("something lies beside it:", entries, err)
	}
	if err := Replace(path, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, &got); err == nil {
		t.Error("half a file is read")
	}
	if err := Write(filepath.Join(path, "below"), 1); err == nil {
		t.Error("a file has no files")
	}
}

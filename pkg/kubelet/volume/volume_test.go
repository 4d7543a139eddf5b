package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPublishReplacesAtOnce(t *testing.T) {
	dir := t.TempDir()
	read := func(p string) string {
		b, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	if err := publish(dir, files{"a": {[]byte("1"), 0o644}, "b/c": {[]byte("2"), 0o400}}, nil, -1); err != nil {
		t.Fatal(err)
	}
	first, _ := os.Readlink(filepath.Join(dir, dataLink))
	if read("a") != "1" || read("b/c") != "2" {
		t.Fatal(read("a"), read("b/c"))
	}
	if st, err := os.Stat(filepath.Join(dir, "b/c")); err != nil || st.Mode().Perm() != 0o400 {
		t.Fatal(st, err)
	}
	if err := publish(dir, files{"a": {[]byte("1"), 0o644}, "b/c": {[]byte("2"), 0o400}}, nil, -1); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.Readlink(filepath.Join(dir, dataLink)); again != first {
		t.Error("nothing changed, yet it was written again")
	}
	if err := publish(dir, files{"a": {[]byte("3"), 0o644}}, nil, -1); err != nil {
		t.Fatal(err)
	}
	if read("a") != "3" || !strings.Contains(read("b/c"), "no such file") {
		t.Error(read("a"), read("b/c"))
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Error("want the link, the folder and a; got", entries)
	}
}

func TestBeneathFollowsNoLink(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "evil")); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"evil", "evil/x", "../x"} {
		if _, err := beneath(dir, sub, false); err == nil {
			t.Errorf("%q was opened", sub)
		}
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Error("something was made outside:", entries)
	}
	fd, err := beneath(dir, "a/b", false)
	if err != nil || fd < 0 {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "a/b")); err != nil || !st.IsDir() {
		t.Error(err)
	}
}

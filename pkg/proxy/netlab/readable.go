package netlab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Readable asks whether others' tools, which call nft, can work beside the rules of the calling thread's space: nft lists them, in both its forms, and
// reads what it listed, but for lines that are told. It answers the list.
func Readable(t *testing.T, but func(line string) bool) string {
	t.Helper()
	list := Sh(t, "timeout 10 nft list ruleset")
	Sh(t, "timeout 10 nft -j list ruleset")
	text := "flush ruleset\n"
	for line := range strings.Lines(list) {
		if !but(line) {
			text += line
		}
	}
	path := filepath.Join(t.TempDir(), "ruleset")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	Sh(t, "timeout 10 nft -c -f "+path)
	return list
}

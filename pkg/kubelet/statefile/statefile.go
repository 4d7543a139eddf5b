// Package statefile reads and replaces the small files in which the kubelet keeps who has what of the node.
//
// Flow: Read at the start -> Write after each change, at once: a crash leaves the old file or the new one. Whose turn it is
// to write is the caller's to see to.
package statefile

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// Read reads a file of JSON; ok is false when there is none.
func Read(path string, into any) (ok bool, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(raw, into)
}

// Write replaces a file by JSON at once.
func Write(path string, obj any) error {
	raw, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	return Replace(path, raw)
}

// Replace replaces a file at once. What is written before its name is given lies beside it, hidden.
func Replace(path string, raw []byte) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

package lifecycle

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestLinks(t *testing.T) {
	root := t.TempDir()
	logs := filepath.Join(root, "pods")
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u"}}
	m := New(Config{LogDir: logs, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	w := newWorker(m, pod, true)
	if err := SweepLinks(logs); err != nil {
		t.Error("without a link: ", err)
	}
	log := filepath.Join(LogDir(logs, pod), "c", "1.log")
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.link(pod, "c", "id0", 0)
	w.link(pod, "c", "id1", 1)
	w.link(pod, "c", "id1", 1) // once more, as after a restart
	other := filepath.Join(root, "containers", "somebody's")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "containers", "p_n_c-id1.log"))
	if string(raw) != "text" {
		t.Errorf("%q %v", raw, err)
	}
	sweep := func(want ...string) {
		t.Helper()
		if err := SweepLinks(logs); err != nil {
			t.Error(err)
		}
		var have []string
		entries, _ := os.ReadDir(filepath.Join(root, "containers"))
		for _, e := range entries {
			have = append(have, e.Name())
		}
		if strings.Join(have, " ") != strings.Join(want, " ") {
			t.Errorf("left are %s, want %s", have, want)
		}
	}
	sweep("p_n_c-id1.log", "somebody's")
	w.link(pod, "c", "id2", 1)
	w.unlink(pod, "c", "id1")
	w.unlink(pod, "c", "none")
	sweep("p_n_c-id2.log", "somebody's")
	if err := os.RemoveAll(logs); err != nil {
		t.Fatal(err)
	}
	sweep("somebody's")
	pod.Name = strings.Repeat("x", 253)
	if n := linkName(pod, "c", "id"); len(n) != nameMost || !strings.HasSuffix(n, "xx.log") {
		t.Error(n)
	}
}

package volume

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestEnv(t *testing.T) {
	for _, c := range []struct {
		text string
		want map[string]string
		bad  string
	}{
		{"", map[string]string{}, ""},
		{"# a comment\n\n  \t\nA='1'\n  B = ' two # $A \\n \"x\"'\n#C='3'\nA='4'", map[string]string{"A": "4", "B": " two # $A \\n \"x\""}, ""},
		{"M='one\ntwo='\nN=''\r\n", map[string]string{"M": "one\ntwo=", "N": ""}, ""},
		{"A=1", nil, "line 1: the value of A must stand in single quotes"},
		{"\nA=\"1\"", nil, "line 2: the value of A must"},
		{"M='a\nb'\nA='1''2'", nil, "line 3: something follows the value of A"},
		{"A='1'$B", nil, "something follows"}, {"A='1", nil, "no closing quote"}, {"A", nil, "want NAME='value'"}, {"export A='1'", nil, "want NAME"},
		{"='1'", nil, "want NAME"}, {"A\nB='1'", nil, "line 1: want NAME"}, {"A='\x00'", nil, "zero byte"},
	} {
		got, err := parseEnv(c.text)
		if c.bad == "" && (err != nil || !maps.Equal(got, c.want)) || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%q: %q %v", c.text, got, err)
		}
	}
}

func FuzzEnv(f *testing.F) {
	f.Add("A='1'\n# c\nB = 'x\ny'")
	f.Fuzz(func(t *testing.T, text string) {
		vars, err := parseEnv(text)
		if err != nil {
			return
		}
		again := ""
		for k, v := range vars {
			again += k + "='" + v + "'\n"
		}
		if got, err := parseEnv(again); err != nil || !maps.Equal(got, vars) {
			t.Errorf("%q: %q becomes %q: %v", text, vars, got, err)
		}
	})
}

func TestEnvFile(t *testing.T) {
	m, err := New(Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	pod := &v1.Pod{}
	pod.UID = "u"
	pod.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
	if err := m.Setup(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	dir, err := m.HostPath(pod, "v")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "sub/env"), []byte("A='1'"), 0o600))
	must(os.Symlink("sub/env", filepath.Join(dir, "link")))
	must(os.Symlink("/etc", filepath.Join(dir, "etc")))
	must(syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "huge"), nil, 0o600))
	must(os.Truncate(filepath.Join(dir, "huge"), 1<<30))
	if got, err := m.EnvFile(pod, "v", "sub/env"); err != nil || got["A"] != "1" {
		t.Error(got, err)
	}
	for _, path := range []string{"link", "etc/passwd", "../../../../env", "pipe", "huge", "sub"} {
		if got, err := m.EnvFile(pod, "v", path); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is read: %v %v", path, got, err)
		}
	}
	if _, err := m.EnvFile(pod, "v", "none"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

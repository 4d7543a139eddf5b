package manifests

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit is a unit file: the values of every key, in order, whatever their section.
type unit map[string][]string

func readUnit(t *testing.T, path string) unit {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	u := unit{}
	for line := range strings.Lines(strings.ReplaceAll(string(raw), "\\\n", " ")) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "[") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("%s: %q is no setting", path, line)
		}
		u[key] = append(u[key], value)
	}
	return u
}

func TestUnits(t *testing.T) {
	for _, path := range glob(t, "systemd/*.service", 6) {
		daemon := strings.TrimSuffix(filepath.Base(path), ".service")
		t.Run(daemon, func(t *testing.T) {
			u := readUnit(t, path)
			if len(u["ExecStart"]) != 1 {
				t.Fatalf("want one ExecStart, got %q", u["ExecStart"])
			}
			command := strings.Fields(u["ExecStart"][0])
			if command[0] != "/usr/local/bin/"+daemon || command[1] != "$ARGS" || command[len(command)-1] != "$EXTRA_ARGS" {
				t.Errorf("ExecStart is %q: want /usr/local/bin/%s with ARGS first and EXTRA_ARGS last, which so wins", u["ExecStart"][0], daemon)
			}
			if !slices.Contains(u["EnvironmentFile"], "-/etc/sextant/"+daemon+".env") {
				t.Errorf("EnvironmentFile is %q", u["EnvironmentFile"])
			}
			if r := u["Restart"]; len(r) != 1 || r[0] != "on-failure" && r[0] != "always" {
				t.Errorf("Restart is %q: a daemon that died is to come back", r)
			}
			var args []string
			for _, e := range u["Environment"] {
				if rest, ok := strings.CutPrefix(strings.Trim(e, `"`), "ARGS="); ok {
					args = strings.Fields(rest)
				}
			}
			checkFlags(t, daemon, args)
		})
	}
}

// Mounts of the kubelet reach containers only out of the host's mount namespace, and outlive it.
func TestTheKubeletIsNotBoxedIn(t *testing.T) {
	u := readUnit(t, "systemd/kubelet.service")
	for key := range u {
		for _, boxing := range []string{"Protect", "Private", "ReadOnlyPaths", "InaccessiblePaths", "BindPaths", "MountFlags", "RootDirectory", "TemporaryFileSystem", "RestrictNamespaces", "NoNewPrivileges"} {
			if strings.HasPrefix(key, boxing) {
				t.Errorf("%s gives the kubelet a world of its own, where containers do not see its mounts", key)
			}
		}
	}
	if !slices.Equal(u["KillMode"], []string{"process"}) || !slices.Equal(u["Delegate"], []string{"yes"}) {
		t.Errorf("KillMode is %q and Delegate %q", u["KillMode"], u["Delegate"])
	}
}

// systemd reads the units itself; that needs no systemd that runs. Its warnings count: it goes on without what it warns of.
func TestSystemdAcceptsTheUnits(t *testing.T) {
	dir := t.TempDir()
	slip := filepath.Join(dir, "slip.service")
	if err := os.WriteFile(slip, []byte("[Service]\nExecStart=/bin/true\nRestrat=always\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if said := verify(t, slip); !strings.Contains(said, "Restrat") {
		t.Fatalf("a misspelt setting goes unnoticed, so nothing here means anything: %q", said)
	}
	for _, path := range glob(t, "systemd/*.service", 6) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// The daemons are not installed on the machine that builds them.
		daemon := strings.TrimSuffix(filepath.Base(path), ".service")
		unit := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/local/bin/"+daemon), []byte("/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		if said := verify(t, unit); said != "" {
			t.Errorf("%s: %s", path, said)
		}
	}
}

// verify answers what systemd has to say of a unit.
func verify(t *testing.T, unit string) string {
	t.Helper()
	said, err := exec.Command("systemd-analyze", "verify", unit).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("systemd-analyze is not installed; make unit does that, apt-get install systemd too")
	}
	if err != nil && len(said) == 0 {
		t.Fatal(err)
	}
	return string(said)
}

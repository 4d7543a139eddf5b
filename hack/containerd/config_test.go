package containerd

import (
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestTOML shows the files of those who ask for them: a cluster's node, by either runtime, and the kubelet's tests.
func TestTOML(t *testing.T) {
	const golden = "testdata/configs.txtar"
	node := Config{Dir: "/node", State: "/node/state", Socket: "/node/containerd.sock", Pause: "pause:1"}
	with := func(change func(*Config)) []byte {
		c := node
		change(&c)
		return c.TOML()
	}
	got := txtar.Format(&txtar.Archive{Files: []txtar.File{
		{Name: "cluster-built", Data: with(func(c *Config) { c.Tools, c.Runs = "/tools", "/node/runc" })},
		{Name: "cluster-distro", Data: with(func(c *Config) { c.Runs = "/node/runc" })},
		{Name: "tests-devices", Data: with(func(c *Config) { c.Tools, c.CDI = "/tools", "/node/cdi" })},
		{Name: "tests-crun", Data: with(func(c *Config) { c.Crun, c.Runs = "/usr/bin/crun", "/node/crun" })},
	}})
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got %s", got)
	}
}

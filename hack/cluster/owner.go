package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// owner is the folder whose cluster stands on this machine, or empty. The bridge, which is the first thing made and the
// last one removed, carries it as its alias: a crash at any moment leaves either both or nothing.
func owner() (string, error) {
	alias, err := os.ReadFile("/sys/class/net/" + bridge + "/ifalias")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(alias))
	if name == "" {
		return "", fmt.Errorf("a link %s stands on this machine and is nobody's cluster; remove it with: ip link del %s", bridge, bridge)
	}
	return name, nil
}

// standing is what a user is told who wants a cluster where another one stands.
func standing(owner string) error {
	end := fmt.Sprintf("make -C %s down", filepath.Dir(owner))
	if !exists(filepath.Join(filepath.Dir(owner), "Makefile")) {
		end = "make down, which ends it, since its checkout is gone"
	}
	return fmt.Errorf("a cluster of %s stands on this machine, which has room for one; end it with: %s", owner, end)
}

// free fails when any cluster stands, ours too.
func free() error {
	switch o, err := owner(); {
	case err != nil:
		return err
	case o != "":
		return standing(o)
	}
	return nil
}

// ours fails when the cluster that stands is another folder's; none is fine.
func ours() error {
	o, err := owner()
	if err == nil && o != "" && o != out {
		err = standing(o)
	}
	return err
}

// takeOver makes the cluster of a checkout that is gone ours, since nobody else can end it.
func takeOver() error {
	o, err := owner()
	if err != nil {
		return err
	}
	if o != "" && o != out && !exists(filepath.Join(filepath.Dir(o), "Makefile")) {
		out = o
	}
	return ours()
}

// settings are the flags of `up`, kept for the verbs that come after it.
type settings struct {
	Nodes                                                  int
	Bin, ProxyMode, PodNetwork, Runtime, Addons, PauseName string
}

func settingsFile() string { return filepath.Join(out, "run", "settings.json") }

func keepSettings() error {
	data, err := json.Marshal(settings{*count, *binDir, *proxyMode, *podNetwork, *runtime, *addons, *pauseImage})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(settingsFile()), 0o755); err != nil {
		return err
	}
	return os.WriteFile(settingsFile(), data, 0o644)
}

// recallSettings takes the flags that the standing cluster was started with, if one stands.
func recallSettings() error {
	data, err := os.ReadFile(settingsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var s settings
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("read %s: %w", settingsFile(), err)
	}
	*count, *binDir, *proxyMode, *podNetwork, *runtime, *addons, *pauseImage = s.Nodes, s.Bin, s.ProxyMode, s.PodNetwork, s.Runtime, s.Addons, s.PauseName
	return nil
}

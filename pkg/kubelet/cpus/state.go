package cpus

import (
	"errors"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"strings"

	"k8s.io/utils/cpuset"
	"k8s.io/utils/dump"

	"github.com/sextant-k8s/sextant/pkg/kubelet/statefile"
)

// stateFile is the name and CPUManagerCheckpoint the form of upstream's file, so that either kubelet reads the other's.
const stateFile = "cpu_manager_state"

// Checksum has upstream's name: it is part of what is summed.
type Checksum uint64

// CPUManagerCheckpoint is who has which CPUs: by pod UID and container name.
type CPUManagerCheckpoint struct {
	PolicyName    string                       `json:"policyName"`
	DefaultCPUSet string                       `json:"defaultCpuSet"`
	Entries       map[string]map[string]string `json:"entries,omitempty"`
	Checksum      Checksum                     `json:"checksum"`
}

// sum is upstream's checksum: a hash of the whole printed with its types, whose packages have upstream's names.
func (c CPUManagerCheckpoint) sum() Checksum {
	c.Checksum = 0
	if c.Entries == nil {
		c.Entries = map[string]map[string]string{}
	}
	text := strings.Replace(dump.ForHash(&c), "(*cpus.", "(*state.", 1)
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.Replace(text, "(cpus.Checksum)", "(checksum.Checksum)", 1))) // a hash takes all
	return Checksum(h.Sum32())
}

// state is who has which CPUs.
type state struct {
	shared cpuset.CPUSet
	given  map[string]map[string]cpuset.CPUSet
}

// read reads the state of a folder; ok is false when there is none. A file of another policy is an error, as upstream's.
// What a newer release sums otherwise is read all the same.
func read(dir, policy string) (s state, ok bool, err error) {
	path := filepath.Join(dir, stateFile)
	s.given = map[string]map[string]cpuset.CPUSet{}
	var c CPUManagerCheckpoint
	ok, err = statefile.Read(path, &c)
	if !ok && err == nil {
		return s, false, nil
	}
	if err == nil && c.PolicyName != policy {
		err = fmt.Errorf("configured policy %q differs from state checkpoint policy %q", policy, c.PolicyName)
	}
	if err == nil {
		s.shared, err = cpuset.Parse(c.DefaultCPUSet)
	}
	for uid, list := range c.Entries {
		s.given[uid] = map[string]cpuset.CPUSet{}
		for name, text := range list {
			set, perr := cpuset.Parse(text)
			s.given[uid][name], err = set, errors.Join(err, perr)
		}
	}
	if err != nil {
		return s, false, fmt.Errorf("could not restore state from checkpoint: %w, please drain this node and delete the CPU manager checkpoint file %q before restarting Kubelet", err, path)
	}
	return s, true, nil
}

// write replaces the state of a folder at once.
func write(dir, policy string, s state) error {
	c := CPUManagerCheckpoint{PolicyName: policy, DefaultCPUSet: s.shared.String(), Entries: map[string]map[string]string{}}
	for uid, list := range s.given {
		c.Entries[uid] = map[string]string{}
		for name, set := range list {
			c.Entries[uid][name] = set.String()
		}
	}
	c.Checksum = c.sum()
	return statefile.Write(filepath.Join(dir, stateFile), c)
}

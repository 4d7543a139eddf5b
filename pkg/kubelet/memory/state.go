package memory

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/dump"

	"github.com/sextant-k8s/sextant/pkg/kubelet/statefile"
)

// stateFile is the name and these types the form of upstream's file, so that either kubelet reads the other's. Their names
// are part of what is summed.
const stateFile = "memory_manager_state"

// Checksum is a sum of a MemoryManagerCheckpoint.
type Checksum uint64

// MemoryManagerCheckpoint is what each NUMA node has, and who has it.
type MemoryManagerCheckpoint struct {
	PolicyName   string                     `json:"policyName"`
	MachineState NUMANodeMap                `json:"machineState"`
	Entries      ContainerMemoryAssignments `json:"entries,omitempty"`
	Checksum     Checksum                   `json:"checksum"`
}

// NUMANodeMap is by node ID.
type NUMANodeMap map[int]*NUMANodeState

// NUMANodeState is one node: how many containers it serves, and the group it serves them in.
type NUMANodeState struct {
	NumberOfAssignments int                              `json:"numberOfAssignments"`
	MemoryMap           map[v1.ResourceName]*MemoryTable `json:"memoryMap"`
	Cells               []int                            `json:"cells"`
}

// MemoryTable is one kind of memory of a node, in bytes.
type MemoryTable struct {
	TotalMemSize   uint64 `json:"total"`
	SystemReserved uint64 `json:"systemReserved"`
	Allocatable    uint64 `json:"allocatable"`
	Reserved       uint64 `json:"reserved"`
	Free           uint64 `json:"free"`
}

// ContainerMemoryAssignments are by pod UID and container name.
type ContainerMemoryAssignments map[string]map[string][]Block

// Block is memory of one kind from a group of nodes.
type Block struct {
	NUMAAffinity []int           `json:"numaAffinity"`
	Type         v1.ResourceName `json:"type"`
	Size         uint64          `json:"size"`
}

// sum is upstream's checksum: a hash of the whole printed with its types, whose packages have upstream's names.
func (c MemoryManagerCheckpoint) sum() Checksum {
	c.Checksum = 0
	if c.Entries == nil {
		c.Entries = ContainerMemoryAssignments{}
	}
	text := strings.Replace(dump.ForHash(&c), "(memory.Checksum)", "(checksum.Checksum)", 1)
	for _, before := range []string{"(", "*", "]"} {
		text = strings.ReplaceAll(text, before+"memory.", before+"state.")
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(text)) // a hash takes all
	return Checksum(h.Sum32())
}

// read reads the state of a folder; ok is false when there is none. A file of another policy is an error, as upstream's.
// What a newer release sums otherwise is read all the same.
func read(dir, policy string) (c MemoryManagerCheckpoint, ok bool, err error) {
	path := filepath.Join(dir, stateFile)
	ok, err = statefile.Read(path, &c)
	if !ok && err == nil {
		return c, false, nil
	}
	if err == nil && c.PolicyName != policy {
		err = fmt.Errorf("configured policy %q differs from state checkpoint policy %q", policy, c.PolicyName)
	}
	if err != nil {
		return c, false, fmt.Errorf("could not restore state from checkpoint: %w, please drain this node and delete the memory manager checkpoint file %q before restarting Kubelet", err, path)
	}
	return c, true, nil
}

// write replaces the state of a folder at once.
func write(dir string, c MemoryManagerCheckpoint) error {
	c.Checksum = c.sum()
	return statefile.Write(filepath.Join(dir, stateFile), c)
}

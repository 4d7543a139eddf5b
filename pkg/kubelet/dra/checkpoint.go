package dra

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sextant-k8s/sextant/pkg/kubelet/statefile"
)

// checkpointFile is the name and these types the form of upstream's file, so that either kubelet reads the other's.
const checkpointFile = "dra_manager_state"

type checkpoint struct {
	// Data is a body as JSON; Checksum is its CRC-32.
	Data     string
	Checksum uint32
}

type body struct {
	Kind               string           `json:"kind"`
	APIVersion         string           `json:"apiVersion"`
	ClaimInfoStateList []ClaimInfoState `json:"ClaimInfoStateList"`
}

// ClaimInfoState is one prepared claim, and the pods that use it.
type ClaimInfoState struct {
	ClaimUID    types.UID
	ClaimName   string
	Namespace   string
	PodUIDs     map[string]struct{}
	DriverState map[string]DriverState
}

// DriverState is what a driver has prepared of a claim.
type DriverState struct{ Devices []Device }

// Device is one prepared device.
type Device struct {
	PoolName     string
	DeviceName   string
	ShareID      *types.UID `json:"ShareID,omitempty"`
	RequestNames []string
	CDIDeviceIDs []string
}

func encode(list []ClaimInfoState) ([]byte, error) {
	raw, err := json.Marshal(body{"DRACheckpoint", "checkpoint.dra.kubelet.k8s.io/v1", list})
	if err != nil {
		return nil, err
	}
	return json.Marshal(checkpoint{string(raw), crc32.ChecksumIEEE(raw)})
}

// read reads the checkpoint of a folder; a missing one is empty.
func read(dir string) ([]ClaimInfoState, error) {
	path := filepath.Join(dir, checkpointFile)
	var c checkpoint
	var b body
	ok, err := statefile.Read(path, &c)
	if !ok && err == nil {
		return nil, nil
	}
	if err == nil && crc32.ChecksumIEEE([]byte(c.Data)) != c.Checksum {
		err = errors.New("checkpoint is corrupted")
	}
	if err == nil {
		err = json.Unmarshal([]byte(c.Data), &b)
	}
	if err != nil {
		return nil, fmt.Errorf("reading prepared claims: %w; remove %s once no pod of this node has claims", err, path)
	}
	return b.ClaimInfoStateList, nil
}

// write replaces the checkpoint of a folder at once.
func write(dir string, list []ClaimInfoState) error {
	raw, err := encode(list)
	if err != nil {
		return err
	}
	return statefile.Replace(filepath.Join(dir, checkpointFile), raw)
}

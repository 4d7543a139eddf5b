package devices

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
	"sort"
	"strings"

	"k8s.io/utils/dump"

	"github.com/sextant-k8s/sextant/pkg/kubelet/statefile"
)

// checkpointFile is the name and checkpoint the form of upstream's file, so that either kubelet reads the other's.
const checkpointFile = "kubelet_internal_checkpoint"

type checkpoint struct {
	Data     checkpointData
	Checksum uint64
}

type checkpointData struct {
	PodDeviceEntries  []PodDevicesEntry
	RegisteredDevices map[string][]string
}

// PodDevicesEntry is what one container has of one resource. DeviceIDs are by NUMA node, -1 for those near none; AllocResp
// is the plugin's answer as protobuf.
type PodDevicesEntry struct {
	PodUID        string
	ContainerName string
	ResourceName  string
	DeviceIDs     DevicesPerNUMA
	AllocResp     []byte
}

// DevicesPerNUMA are device IDs by NUMA node.
type DevicesPerNUMA map[int64][]string

// sum is upstream's checksum: a hash of the data printed with its types, whose packages have upstream's names.
func (d checkpointData) sum() uint64 {
	text := strings.ReplaceAll(dump.ForHash(d), "(devices.", "(checkpoint.")
	for _, prefix := range []string{"]", "*"} {
		text = strings.ReplaceAll(text, prefix+"devices.", prefix+"checkpoint.")
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(text)) // a hash takes all
	return uint64(h.Sum32())
}

// read reads the checkpoint of a folder; a missing one is empty. What a newer release sums otherwise is read all the
// same; what is not JSON is an error.
func read(dir string) (checkpointData, error) {
	var c checkpoint
	if _, err := statefile.Read(filepath.Join(dir, checkpointFile), &c); err != nil {
		return checkpointData{}, fmt.Errorf("reading the device checkpoint: %w; remove %s once no pod of this node has devices", err, filepath.Join(dir, checkpointFile))
	}
	return c.Data, nil
}

// write replaces the checkpoint of a folder at once.
func write(dir string, d checkpointData) error {
	sort.Slice(d.PodDeviceEntries, func(i, j int) bool {
		a, b := d.PodDeviceEntries[i], d.PodDeviceEntries[j]
		return a.PodUID+"/"+a.ContainerName+"/"+a.ResourceName < b.PodUID+"/"+b.ContainerName+"/"+b.ResourceName
	})
	return statefile.Write(filepath.Join(dir, checkpointFile), checkpoint{d, d.sum()})
}

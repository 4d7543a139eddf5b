package devices

import (
	"encoding/json"
	"testing"
)

// TestSum: upstream kubelets refuse a file whose sum is not theirs. These files were written by them.
func TestSum(t *testing.T) {
	for _, file := range []string{
		`{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{"nvidia.com/gpu":["GPU-0650a168-e770-3ea8-8ac3-8a1d419763e0"]}},"Checksum":3952659280}`,
		`{"Data":{"PodDeviceEntries":[{"PodUID":"bf52b2cd-b611-4e79-86b1-280b283185c3","ContainerName":"check","ResourceName":"nvidia.com/gpu","DeviceIDs":{"-1":["tegra"]},"AllocResp":"Ch8KFk5WSURJQV9WSVNJQkxFX0RFVklDRVMSBXRlZ3Jh"}],"RegisteredDevices":{"nvidia.com/gpu":["tegra"]}},"Checksum":3660592824}`,
	} {
		var c checkpoint
		if err := json.Unmarshal([]byte(file), &c); err != nil {
			t.Fatal(err)
		}
		if got := c.Data.sum(); got != c.Checksum {
			t.Errorf("%s: got %d", file, got)
		}
		raw, err := json.Marshal(c)
		if err != nil || string(raw) != file {
			t.Errorf("written again it reads %s (%v)", raw, err)
		}
	}
}

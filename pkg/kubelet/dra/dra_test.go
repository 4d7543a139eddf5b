package dra

import (
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	v1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestCheckpoint: this is upstream's form.
func TestCheckpoint(t *testing.T) {
	const file = `{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"uid-1\",\"ClaimName\":\"mine\",\"Namespace\":\"ns\",\"PodUIDs\":{\"uid-p\":{}},\"DriverState\":{\"gpu.sextant.test\":{\"Devices\":[{\"PoolName\":\"n1\",\"DeviceName\":\"dev-1\",\"RequestNames\":[\"one\"],\"CDIDeviceIDs\":[\"sextant.test/gpu=one\"]}]}}}]}","Checksum":1900223338}`
	dir := t.TempDir()
	path := filepath.Join(dir, checkpointFile)
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := read(dir)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if raw, err := encode(list); err != nil || string(raw) != file {
		t.Errorf("written again it reads %s (%v)", raw, err)
	}
	var c checkpoint
	if err := json.Unmarshal([]byte(file), &c); err != nil || crc32.ChecksumIEEE([]byte(c.Data)) != c.Checksum {
		t.Error("the checksum is another", err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(file, "dev-1", "dev-2", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(dir); err == nil {
		t.Error("a changed file is believed")
	}
}

// scene is what scripts write: claims by name with the pods they are for and their devices as driver/device.
type scene struct {
	Claims []struct {
		Name        string
		For         []string
		Devices     []string
		Unallocated bool
		Skips       []resourcev1.SkipNodeOperation
	}
	Known []struct {
		Name    string
		Pods    []string
		Drivers []string
		// Prepared by, in this life of the kubelet.
		Prepared []string
	}
}

func TestDecide(t *testing.T) {
	const name = "testdata/prepare.txtar"
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range a.Files {
		in, _, _ := strings.Cut(string(f.Data), "=>")
		var s scene
		if err := yaml.UnmarshalStrict([]byte(in), &s); err != nil {
			t.Fatal(f.Name, err)
		}
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "uid-p"}}
		var claims []*resourcev1.ResourceClaim
		for _, c := range s.Claims {
			o := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: c.Name, Namespace: "ns", UID: types.UID("uid-" + c.Name)}}
			for _, p := range c.For {
				o.Status.ReservedFor = append(o.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p, UID: types.UID("uid-" + p)})
			}
			if !c.Unallocated {
				o.Status.Allocation = &resourcev1.AllocationResult{}
				for _, d := range c.Devices {
					driver, device, _ := strings.Cut(d, "/")
					o.Status.Allocation.Devices.Results = append(o.Status.Allocation.Devices.Results, resourcev1.DeviceRequestAllocationResult{Request: "r", Driver: driver, Pool: "n1", Device: device, SkipNodeOperations: c.Skips})
				}
			}
			claims = append(claims, o)
		}
		known, prepared := map[types.UID]ClaimInfoState{}, map[types.UID]map[string]bool{}
		for _, k := range s.Known {
			uid := types.UID("uid-" + k.Name)
			info := ClaimInfoState{ClaimUID: uid, ClaimName: k.Name, Namespace: "ns", PodUIDs: map[string]struct{}{}, DriverState: map[string]DriverState{}}
			for _, p := range k.Pods {
				info.PodUIDs["uid-"+p] = struct{}{}
			}
			for _, d := range k.Drivers {
				info.DriverState[d] = DriverState{}
			}
			prepared[uid] = map[string]bool{}
			for _, d := range k.Prepared {
				prepared[uid][d] = true
			}
			known[uid] = info
		}
		got := in
		if p, err := decide(pod, claims, known, prepared); err != nil {
			got += fmt.Sprintf("=> %v\n", err)
		} else {
			got += fmt.Sprintf("=> %v\n", p)
		}
		if got != string(f.Data) {
			if !*update {
				t.Errorf("%s: got\n%swant\n%s", f.Name, got, f.Data)
			}
			a.Files[i].Data = []byte(got)
		}
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServes(t *testing.T) {
	for _, c := range []struct {
		of      []string
		request string
		want    bool
	}{{nil, "r", true}, {[]string{"r"}, "", true}, {[]string{"r"}, "r", true}, {[]string{"r"}, "s", false}, {[]string{"r/big"}, "r", true}, {[]string{"r/big"}, "r/small", false}} {
		if got := serves(Device{RequestNames: c.of}, c.request); got != c.want {
			t.Errorf("a device for %v serves %q: %t", c.of, c.request, got)
		}
	}
}

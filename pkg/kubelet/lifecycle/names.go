package lifecycle

import (
	"encoding/json"
	"hash/fnv"
	"io"
	"path/filepath"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/dump"
)

// Hash identifies the fields of a container whose change restarts it. It equals upstream's, so that either kubelet
// adopts the other's containers.
func Hash(c *v1.Container) string {
	raw, err := json.Marshal(map[string]string{"name": c.Name, "image": c.Image})
	if err != nil {
		return ""
	}
	h := fnv.New32a()
	_, _ = io.WriteString(h, dump.ForHash(raw))
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// QOS is the pod's quality-of-service class by its cpu and memory requests and limits.
func QOS(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	any, guaranteed := false, true
	one := func(r v1.ResourceRequirements) {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			req, lim := r.Requests[name], r.Limits[name]
			any = any || !req.IsZero() || !lim.IsZero()
			if lim.IsZero() || !req.IsZero() && req.Cmp(lim) != 0 {
				guaranteed = false
			}
		}
	}
	if pod.Spec.Resources != nil {
		one(*pod.Spec.Resources)
	} else {
		for _, c := range pod.Spec.InitContainers {
			one(c.Resources)
		}
		for _, c := range pod.Spec.Containers {
			one(c.Resources)
		}
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}

// LogDir is where a pod's container logs lie: <root>/<namespace>_<name>_<uid>.
func LogDir(root string, pod *v1.Pod) string {
	return filepath.Join(root, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// specOf finds a container of any kind by name.
func specOf(pod *v1.Pod, name string) *v1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			c := v1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
			return &c
		}
	}
	return nil
}

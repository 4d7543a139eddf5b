//go:build e2e

package conformance

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var storageDownward = func() []behaviour {
	var rows []behaviour
	for name, projected := range map[string]bool{"Downward API volume": false, "Projected downwardAPI": true} {
		d := downward{projected}
		rows = append(rows,
			behaviour{name: name + " should provide podname only", test: d.prints(fieldFile("f", "metadata.name", nil), nil, "down\n-rw-r--r--")},
			behaviour{name: name + " should set DefaultMode on files", test: d.prints(fieldFile("f", "metadata.name", nil), ptr(int32(0o400)), "down\n-r--------")},
			behaviour{name: name + " should set mode on item file", test: d.prints(fieldFile("f", "metadata.name", ptr(int32(0o400))), nil, "down\n-r--------")},
			behaviour{name: name + " should provide podname as non-root with fsgroup and defaultMode", test: d.group},
			behaviour{name: name + " should provide container's cpu limit", test: d.prints(resourceFile("limits.cpu"), nil, "2\n-rw-r--r--")},
			behaviour{name: name + " should provide container's memory limit", test: d.prints(resourceFile("limits.memory"), nil, "67108864\n-rw-r--r--")},
			behaviour{name: name + " should provide container's cpu request", test: d.prints(resourceFile("requests.cpu"), nil, "1\n-rw-r--r--")},
			behaviour{name: name + " should provide container's memory request", test: d.prints(resourceFile("requests.memory"), nil, "33554432\n-rw-r--r--")},
			behaviour{name: name + " should provide node allocatable as default limits if the limit is not set", test: d.defaults},
			behaviour{name: name + " should update labels and annotations on modification", test: d.follows},
		)
	}
	return rows
}()

type downward struct{ projected bool }

func (d downward) source(mode *int32, items ...corev1.DownwardAPIVolumeFile) corev1.VolumeSource {
	if d.projected {
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: items}}}}}
	}
	return corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{DefaultMode: mode, Items: items}}
}

func fieldFile(path, field string, mode *int32) corev1.DownwardAPIVolumeFile {
	return corev1.DownwardAPIVolumeFile{Path: path, Mode: mode, FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: field}}
}

func resourceFile(name string) corev1.DownwardAPIVolumeFile {
	return corev1.DownwardAPIVolumeFile{Path: "f", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "c", Resource: name}}
}

func (d downward) prints(file corev1.DownwardAPIVolumeFile, mode *int32, want string) func(w *world) {
	return func(w *world) {
		same("file", w.prints(pod("down", shows("/etc/v/f"), volume("v", d.source(mode, file)), first(func(c *corev1.Container) {
			c.Resources = corev1.ResourceRequirements{Requests: resources("250m", "32Mi"), Limits: resources("1250m", "64Mi")}
		}))), want)
	}
}

func (d downward) group(w *world) {
	p := pod("down", shows("/etc/v/f"), volume("v", d.source(ptr(int32(0o440)), fieldFile("f", "metadata.name", nil))), asUser(1001, 0))
	p.Spec.SecurityContext.FSGroup = ptr(int64(1234))
	same("file", w.prints(p), "down\n-r--r-----")
}

func (d downward) defaults(w *world) {
	cpu, memory := resourceFile("limits.cpu"), resourceFile("limits.memory")
	cpu.Path, memory.Path = "cpu", "memory"
	text := w.prints(pod("down", "cat /etc/v/cpu; echo; cat /etc/v/memory", volume("v", d.source(nil, cpu, memory))))
	node := must(api.CoreV1().Nodes().Get(ctx, w.get("down").Spec.NodeName, metav1.GetOptions{}))
	same("limits", text, node.Status.Allocatable.Cpu().String()+"\n"+number(node.Status.Allocatable.Memory().Value()))
}

func (d downward) follows(w *world) {
	p := pod("down", "while :; do cat /etc/v/labels /etc/v/annotations; echo; sleep 2; done", volume("v", d.source(nil, fieldFile("labels", "metadata.labels", nil), fieldFile("annotations", "metadata.annotations", nil))))
	p.Labels["key1"], p.Annotations = "value1", map[string]string{"builder": "bar"}
	w.ready(p)
	w.says("down", "c", "key1=\"value1\"\n", 30*time.Second)
	w.says("down", "c", "builder=\"bar\"", 30*time.Second)
	done(w.update("down", func(p *corev1.Pod) { p.Labels["key3"] = "value3"; p.Annotations["builder"] = "foo" }))
	w.says("down", "c", "key3=\"value3\"\n", reflectLimit)
	w.says("down", "c", "builder=\"foo\"", reflectLimit)
}

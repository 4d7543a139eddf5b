//go:build e2e

package conformance

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var storageDirs = func() []behaviour {
	rows := []behaviour{
		{name: "EmptyDir volumes volume on default medium should have the correct mode", test: dirMode("")},
		{name: "EmptyDir volumes volume on tmpfs should have the correct mode", test: dirMode(corev1.StorageMediumMemory)},
		{name: "EmptyDir volumes pod should support shared volumes between containers", test: dirShared},
		{name: "EmptyDir volumes pod should support memory backed volumes of specified size", test: dirSized},
		{name: "HostPath should give a volume the correct mode and let subpaths be used", test: hostPath},
		{name: "Subpath Atomic writer volumes should support subpaths with configmap pod with mountPath of existing file", test: subpathOverFile},
		{name: "Subpath files stay as they were when the object changes", test: subpathStays},
		{name: "Subpath that leaves its volume is refused", test: subpathEscapes},
		{name: "Subpath that is not there is made", test: subpathMade},
	}
	for _, user := range []int64{0, 1001} {
		for _, mode := range []string{"0644", "0666", "0777"} {
			for _, medium := range []corev1.StorageMedium{"", corev1.StorageMediumMemory} {
				who, where := "root", "default"
				if user > 0 {
					who = "non-root"
				}
				if medium != "" {
					where = "tmpfs"
				}
				rows = append(rows, behaviour{name: fmt.Sprintf("EmptyDir volumes should support (%s,%s,%s)", who, mode, where), test: dirFile(user, mode, medium)})
			}
		}
	}
	for name, source := range map[string]func(w *world) corev1.VolumeSource{
		"configmap": func(w *world) corev1.VolumeSource {
			w.configMap("m", map[string]string{"file": "content"})
			return filesOf{}.source("m", nil, nil, nil)
		},
		"secret": func(w *world) corev1.VolumeSource {
			w.secret("s", map[string]string{"file": "content"})
			return filesOf{secret: true}.source("s", nil, nil, nil)
		},
		"projected": func(w *world) corev1.VolumeSource {
			w.configMap("m", map[string]string{"file": "content"})
			return filesOf{projected: true}.source("m", nil, nil, nil)
		},
		"downward": func(_ *world) corev1.VolumeSource {
			return corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "file", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['note']"}}}}}
		},
	} {
		rows = append(rows, behaviour{name: "Subpath Atomic writer volumes should support subpaths with " + name + " pod", test: func(w *world) {
			same("file", w.prints(pod("subpath", "cat /etc/v; sleep 3; cat /etc/v", func(p *corev1.Pod) { p.Annotations = map[string]string{"note": "content"} },
				volume("v", source(w), func(m *corev1.VolumeMount) { m.SubPath = "file" }))), "contentcontent")
		}})
	}
	return rows
}()

func emptyDir(medium corev1.StorageMedium) corev1.VolumeSource {
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}
}

// fsType is a script that ends well if the path lies on tmpfs, or where it does not.
func fsType(medium corev1.StorageMedium) string {
	if medium == corev1.StorageMediumMemory {
		return "stat -f -c %T /etc/v | grep tmpfs >/dev/null"
	}
	return "true"
}

func dirMode(medium corev1.StorageMedium) func(w *world) {
	return func(w *world) {
		same("mode", w.prints(pod("mode", fsType(medium)+" && stat -c %A /etc/v", volume("v", emptyDir(medium)))), "drwxrwxrwx")
	}
}

func dirFile(user int64, mode string, medium corev1.StorageMedium) func(w *world) {
	return func(w *world) {
		p := pod("file", fsType(medium)+" && echo mount-tester new file >/etc/v/f && chmod "+mode+" /etc/v/f && cat /etc/v/f && stat -c %A /etc/v/f", volume("v", emptyDir(medium)))
		if user > 0 {
			asUser(user, 0)(p)
		}
		want := map[string]string{"0644": "-rw-r--r--", "0666": "-rw-rw-rw-", "0777": "-rwxrwxrwx"}[mode]
		same("file", w.prints(p), "mount-tester new file\n"+want)
	}
}

func dirShared(w *world) {
	p := pod("shared", "while ! [ -e /etc/v/f ]; do sleep 0.2; done; cat /etc/v/f; sleep 1000")
	p.Spec.Containers = append(p.Spec.Containers, box("writer", "echo Hello from the busy-box sub-container >/etc/v/f; sleep 1000"))
	volume("v", emptyDir(""))(p)
	w.ready(p)
	w.says("shared", "c", "Hello from the busy-box sub-container", 20*time.Second)
	same("file", must(w.exec("shared", "c", "cat", "/etc/v/f")), "Hello from the busy-box sub-container")
}

func dirSized(w *world) {
	source := emptyDir(corev1.StorageMediumMemory)
	source.EmptyDir.SizeLimit = ptr(resource.MustParse("42Mi"))
	same("size", w.prints(pod("sized", "df /etc/v | tail -1 | awk '{print $2}'", volume("v", source), first(func(c *corev1.Container) {
		c.Resources.Limits = resources("", "64Mi")
	}))), "43008")
}

func hostPath(w *world) {
	dir := "/tmp/conformance-" + w.ns
	source := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: ptr(corev1.HostPathDirectoryOrCreate)}}
	w.prints(pod("writes", "chmod 0777 /etc/v && mkdir /etc/v/sub && echo here >/etc/v/sub/f && stat -c %A /etc/v", volume("v", source)))
	node := w.get("writes").Spec.NodeName
	on := func(p *corev1.Pod) { p.Spec.NodeName = node }
	same("file", w.prints(pod("reads", "cat /etc/v/f; rm /etc/v/f", on, volume("v", source, func(m *corev1.VolumeMount) { m.SubPath = "sub" }))), "here")
	file := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: ptr(corev1.HostPathFile)}}
	w.create(pod("no-file", "true", on, volume("v", file)))
	w.event(30*time.Second, "no-file", "FailedMount", "hostPath type check failed: "+dir+" is not a file")
	parent := corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}
	w.prints(pod("clean", "rm -r /etc/v/conformance-"+w.ns, on, volume("v", parent)))
}

func subpathOverFile(w *world) {
	w.configMap("m", map[string]string{"file": "content"})
	same("file", w.prints(pod("over", "cat /etc/resolv.conf", volume("v", filesOf{}.source("m", nil, nil, nil), func(m *corev1.VolumeMount) { m.SubPath, m.MountPath = "file", "/etc/resolv.conf" }))), "content")
	same("file", w.prints(pod("over-bin", "cat /bin/wget", volume("v", filesOf{}.source("m", nil, nil, nil), func(m *corev1.VolumeMount) { m.SubPath, m.MountPath = "file", "/bin/wget" }))), "content")
}

func subpathStays(w *world) {
	f := filesOf{}
	f.make(w, "m", map[string]string{"file": "one"})
	p := pod("stays", sleepScript, volume("v", f.source("m", nil, nil, nil), func(m *corev1.VolumeMount) { m.SubPath, m.MountPath = "file", "/stays" }))
	p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "v", MountPath: "/follows"})
	w.ready(p)
	f.set(w, "m", "file", "two")
	w.until(reflectLimit, "the volume follows", func() error { return differs("file", w.sh("stays", "cat /follows/file"), "two") })
	same("subpath file", w.sh("stays", "cat /stays"), "one")
}

func subpathEscapes(w *world) {
	p := pod("escapes", "ls /sub", volume("v", emptyDir("")))
	p.Spec.InitContainers = []corev1.Container{box("link", "ln -s /etc /work/out")}
	p.Spec.InitContainers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/work"}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/sub", SubPath: "out"}}
	w.create(p)
	w.event(30*time.Second, "escapes", "Failed", `failed to prepare subPath for volumeMount "v" of container "c"`)
	_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("dots", "ls", volume("v", emptyDir(""), func(m *corev1.VolumeMount) { m.SubPath = "../x" })), metav1.CreateOptions{})
	if err == nil {
		fatal("a subpath with dots is taken")
	}
}

func subpathMade(w *world) {
	p := pod("made", "ls -d /sub && touch /sub/f && ls /whole/a/b", volume("v", emptyDir("")))
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/sub", SubPath: "a/b"}, {Name: "v", MountPath: "/whole"}}
	same("files", w.prints(p), "/sub\nf")
}

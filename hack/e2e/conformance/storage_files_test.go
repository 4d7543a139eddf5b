//go:build e2e

package conformance

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// filesOf are the volumes made of an object's data: the same rules hold for each.
type filesOf struct {
	name      string
	secret    bool
	projected bool
}

var storageFiles = func() []behaviour {
	var rows []behaviour
	for _, f := range []filesOf{{"ConfigMap", false, false}, {"Secrets", true, false}, {"Projected configMap", false, true}, {"Projected secret", true, true}} {
		rows = append(rows,
			behaviour{name: f.name + " should be consumable from pods in volume", test: f.consumed(nil, "-rw-r--r--")},
			behaviour{name: f.name + " should be consumable from pods in volume with defaultMode set", test: f.consumed(ptr(int32(0o400)), "-r--------")},
			behaviour{name: f.name + " should be consumable from pods in volume as non-root", test: f.nonRoot(nil, nil, "-rw-r--r--")},
			behaviour{name: f.name + " should be consumable from pods in volume as non-root with defaultMode and fsGroup set", test: f.nonRoot(ptr(int32(0o440)), ptr(int64(1001)), "-r--r-----")},
			behaviour{name: f.name + " should be consumable from pods in volume with mappings", test: f.mapped(nil, false, "-rw-r--r--")},
			behaviour{name: f.name + " should be consumable from pods in volume with mappings and Item mode set", test: f.mapped(ptr(int32(0o400)), false, "-r--------")},
			behaviour{name: f.name + " should be consumable from pods in volume with mappings as non-root", test: f.mapped(nil, true, "-rw-r--r--")},
			behaviour{name: f.name + " should be consumable in multiple volumes in the same pod", test: f.twice},
			behaviour{name: f.name + " optional updates should be reflected in volume", slow: f.projected, test: f.optional},
			behaviour{name: f.name + " that is not there holds the pod back", slow: f.projected, test: f.absent},
		)
	}
	return append(rows,
		behaviour{name: "Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace", test: secretOtherNamespace},
		behaviour{name: "ConfigMap updates should be reflected in volume", test: configMapReflected},
		behaviour{name: "ConfigMap binary data should be reflected in volume", test: configMapBinary},
		behaviour{name: "ConfigMap should be immutable if `immutable` field is set", test: configMapImmutable},
		behaviour{name: "Secrets should be immutable if `immutable` field is set", test: secretImmutable},
		behaviour{name: "EmptyDir wrapper volumes should not conflict", test: wrapperVolumes},
		behaviour{name: "EmptyDir wrapper volumes should not cause race condition when used for configmaps", test: wrapperRace},
		behaviour{name: "Projected combined should project all components that make up the projection API", test: projectedAll},
	)
}()

func (f filesOf) source(object string, items []corev1.KeyToPath, mode *int32, optional *bool) corev1.VolumeSource {
	ref := corev1.LocalObjectReference{Name: object}
	switch {
	case f.projected && f.secret:
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: ref, Items: items, Optional: optional}}}}}
	case f.projected:
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: mode, Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref, Items: items, Optional: optional}}}}}
	case f.secret:
		return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: object, Items: items, DefaultMode: mode, Optional: optional}}
	}
	return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref, Items: items, DefaultMode: mode, Optional: optional}}
}

func (f filesOf) make(w *world, name string, data map[string]string) {
	if f.secret {
		w.secret(name, data)
		return
	}
	w.configMap(name, data)
}

func (f filesOf) set(w *world, name, key, value string) {
	if f.secret {
		s := must(api.CoreV1().Secrets(w.ns).Get(ctx, name, metav1.GetOptions{}))
		s.StringData = map[string]string{key: value}
		must(api.CoreV1().Secrets(w.ns).Update(ctx, s, metav1.UpdateOptions{}))
		return
	}
	m := must(api.CoreV1().ConfigMaps(w.ns).Get(ctx, name, metav1.GetOptions{}))
	m.Data[key] = value
	must(api.CoreV1().ConfigMaps(w.ns).Update(ctx, m, metav1.UpdateOptions{}))
}

func (f filesOf) drop(w *world, name string) {
	if f.secret {
		done(api.CoreV1().Secrets(w.ns).Delete(ctx, name, metav1.DeleteOptions{}))
		return
	}
	done(api.CoreV1().ConfigMaps(w.ns).Delete(ctx, name, metav1.DeleteOptions{}))
}

// shows is a script that prints a file's content and then its mode, links followed.
func shows(path string) string { return "cat " + path + "; echo; stat -Lc %A " + path }

func (f filesOf) consumed(mode *int32, want string) func(w *world) {
	return func(w *world) {
		f.make(w, "o", map[string]string{"data-1": "value-1"})
		same("file", w.prints(pod("reads", shows("/etc/v/data-1"), volume("v", f.source("o", nil, mode, nil)))), "value-1\n"+want)
	}
}

func (f filesOf) nonRoot(mode *int32, group *int64, want string) func(w *world) {
	return func(w *world) {
		f.make(w, "o", map[string]string{"data-1": "value-1"})
		p := pod("reads", shows("/etc/v/data-1"), volume("v", f.source("o", nil, mode, nil)), asUser(1000, 0))
		p.Spec.SecurityContext.FSGroup = group
		same("file", w.prints(p), "value-1\n"+want)
	}
}

func (f filesOf) mapped(mode *int32, nonRoot bool, want string) func(w *world) {
	return func(w *world) {
		f.make(w, "o", map[string]string{"data-1": "value-1", "data-2": "value-2"})
		p := pod("reads", shows("/etc/v/path/to/data-2")+"; ls /etc/v", volume("v", f.source("o", []corev1.KeyToPath{{Key: "data-2", Path: "path/to/data-2", Mode: mode}}, nil, nil)))
		if nonRoot {
			asUser(1000, 0)(p)
		}
		same("file", w.prints(p), "value-2\n"+want+"\npath")
	}
}

func (f filesOf) twice(w *world) {
	f.make(w, "o", map[string]string{"data-1": "value-1"})
	same("files", w.prints(pod("reads", "cat /etc/v1/data-1 /etc/v2/data-1", volume("v1", f.source("o", nil, nil, nil)), volume("v2", f.source("o", nil, nil, nil)))), "value-1value-1")
}

// reflectLimit is how long a change may take until it is in a volume.
const reflectLimit = 100 * time.Second

func (f filesOf) optional(w *world) {
	f.make(w, "del", map[string]string{"data-1": "value-1"})
	f.make(w, "upd", map[string]string{"data-1": "value-1"})
	w.ready(pod("reads", sleepScript, volume("del", f.source("del", nil, nil, ptr(true))), volume("upd", f.source("upd", nil, nil, ptr(true))), volume("cre", f.source("cre", nil, nil, ptr(true)))))
	same("created", w.sh("reads", "cat /etc/cre/data-1 2>&1 || true"), "cat: can't open '/etc/cre/data-1': No such file or directory")
	same("updated", w.sh("reads", "cat /etc/upd/data-1"), "value-1")
	same("deleted", w.sh("reads", "cat /etc/del/data-1"), "value-1")
	f.drop(w, "del")
	f.set(w, "upd", "data-3", "value-3")
	f.make(w, "cre", map[string]string{"data-1": "value-1"})
	w.until(reflectLimit, "the volumes follow", func() error {
		text := w.sh("reads", "cat /etc/cre/data-1; echo; cat /etc/upd/data-3; echo; ls /etc/del")
		return differs("files", text, "value-1\nvalue-3")
	})
}

func (f filesOf) absent(w *world) {
	f.make(w, "o", map[string]string{"data-1": "value-1"})
	w.create(pod("none", "true", volume("v", f.source("none", nil, nil, ptr(false)))))
	w.create(pod("no-key", "true", volume("v", f.source("o", []corev1.KeyToPath{{Key: "data-9", Path: "p"}}, nil, ptr(false)))))
	w.event(30*time.Second, "none", "FailedMount", "not found")
	w.event(30*time.Second, "no-key", "FailedMount", "references non-existent")
	same("phase", w.get("none").Status.Phase, corev1.PodPending)
	same("phase", w.get("no-key").Status.Phase, corev1.PodPending)
}

func secretOtherNamespace(w *world) {
	w.secret("shared-name", map[string]string{"data-1": "value-1"})
	other := &world{w.T, w.ns + "-other"}
	other.namespace(other.ns)
	w.Cleanup(func() { _ = api.CoreV1().Namespaces().Delete(ctx, other.ns, metav1.DeleteOptions{}) })
	other.secret("shared-name", map[string]string{"data-1": "another"})
	same("file", w.prints(pod("reads", shows("/etc/v/data-1"), volume("v", filesOf{secret: true}.source("shared-name", nil, nil, nil)))), "value-1\n-rw-r--r--")
}

func configMapReflected(w *world) {
	f := filesOf{}
	f.make(w, "m", map[string]string{"data-1": "value-1"})
	w.ready(pod("follows", "while :; do cat /etc/v/data-1; echo; sleep 1; done", volume("v", f.source("m", nil, nil, nil))))
	w.says("follows", "c", "value-1", 30*time.Second)
	f.set(w, "m", "data-1", "value-2")
	w.says("follows", "c", "value-2", reflectLimit)
}

func configMapBinary(w *world) {
	must(api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Data: map[string]string{"data": "value"}, BinaryData: map[string][]byte{"dump.bin": {0xde, 0xca, 0xfe, 0xba, 0xd0, 0xfe, 0xff}}}, metav1.CreateOptions{}))
	same("files", w.prints(pod("reads", "cat /etc/v/data; hexdump -e '1/1 \" %02x\"' /etc/v/dump.bin", volume("v", filesOf{}.source("b", nil, nil, nil)))), "value de ca fe ba d0 fe ff")
}

func configMapImmutable(w *world) {
	maps := api.CoreV1().ConfigMaps(w.ns)
	m := w.configMap("m", map[string]string{"k": "1"})
	m.Data["k"] = "2"
	m = must(maps.Update(ctx, m, metav1.UpdateOptions{}))
	m.Immutable = ptr(true)
	m = must(maps.Update(ctx, m, metav1.UpdateOptions{}))
	change := m.DeepCopy()
	change.Data["k"] = "3"
	_, err := maps.Update(ctx, change, metav1.UpdateOptions{})
	refused(err, apierrors.IsInvalid)
	for _, back := range []*bool{ptr(false), nil} {
		change = m.DeepCopy()
		change.Immutable = back
		_, err = maps.Update(ctx, change, metav1.UpdateOptions{})
		refused(err, apierrors.IsInvalid)
	}
	m.Labels = map[string]string{"l": "v"}
	must(maps.Update(ctx, m, metav1.UpdateOptions{}))
	done(maps.Delete(ctx, "m", metav1.DeleteOptions{}))
}

func secretImmutable(w *world) {
	secrets := api.CoreV1().Secrets(w.ns)
	m := w.secret("m", map[string]string{"k": "1"})
	m.Immutable = ptr(true)
	m = must(secrets.Update(ctx, m, metav1.UpdateOptions{}))
	change := m.DeepCopy()
	change.Data["k"] = []byte("3")
	_, err := secrets.Update(ctx, change, metav1.UpdateOptions{})
	refused(err, apierrors.IsInvalid)
	change = m.DeepCopy()
	change.Immutable = ptr(false)
	_, err = secrets.Update(ctx, change, metav1.UpdateOptions{})
	refused(err, apierrors.IsInvalid)
	m.Labels = map[string]string{"l": "v"}
	must(secrets.Update(ctx, m, metav1.UpdateOptions{}))
	done(secrets.Delete(ctx, "m", metav1.DeleteOptions{}))
}

func wrapperVolumes(w *world) {
	w.secret("s", map[string]string{"data-1": "value-1\n"})
	w.configMap("m", map[string]string{"data-1": "value-2\n"})
	w.prints(pod("both", "cat /etc/secret-volume/data-1 /etc/configmap-volume/data-1",
		volume("secret-volume", filesOf{secret: true}.source("s", nil, nil, nil)), volume("configmap-volume", filesOf{}.source("m", nil, nil, nil))))
}

func wrapperRace(w *world) {
	var edits []edit
	for i := range 50 {
		name := fmt.Sprintf("racey-%d", i)
		w.configMap(name, map[string]string{"data-1": "value-1"})
		edits = append(edits, volume(name, filesOf{}.source(name, []corev1.KeyToPath{{Key: "data-1", Path: "data-1"}}, nil, nil)))
	}
	for i := range 5 {
		w.create(pod(fmt.Sprintf("race-%d", i), sleepScript, edits...))
	}
	for i := range 5 {
		w.isReady(fmt.Sprintf("race-%d", i))
	}
}

func projectedAll(w *world) {
	w.secret("s", map[string]string{"secret-data": "secret-value"})
	w.configMap("m", map[string]string{"configmap-data": "configmap-value"})
	text := w.prints(pod("all", "cat /etc/all/podname; echo; cat /etc/all/secret-data; echo; cat /etc/all/configmap-data; echo; test -s /etc/all/token && cat /etc/all/ca.crt",
		volume("all", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "podname", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		}}})))
	if !strings.HasPrefix(text, "all\nsecret-value\nconfigmap-value\n-----BEGIN CERTIFICATE-----") {
		fatal("files: %s", text)
	}
}

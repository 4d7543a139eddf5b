package realtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (s *space) configMap(name string, data map[string]string) {
	s.t.Helper()
	cm := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data, BinaryData: map[string][]byte{"bin": {0xff, 0xfe}}}
	if _, err := node.admin.CoreV1().ConfigMaps(s.name).Create(context.Background(), cm, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *space) secret(name string, data map[string]string) {
	s.t.Helper()
	if _, err := node.admin.CoreV1().Secrets(s.name).Create(context.Background(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// TestVolumes runs a pod for each row to its end and compares what it printed.
func TestVolumes(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.configMap("cm", map[string]string{"a": "1", "b": "2"})
	s.secret("sec", map[string]string{"a": "s1", "b": "s2"})
	host := t.TempDir()
	if err := os.WriteFile(host+"/f", []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	q := resource.MustParse("1Gi")
	dir := v1.HostPathDirectory
	pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "realtest"}, Spec: v1.PersistentVolumeSpec{Capacity: v1.ResourceList{"storage": q}, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		PersistentVolumeSource: v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: host, Type: &dir}}}}
	pvc := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "claim"}, Spec: v1.PersistentVolumeClaimSpec{VolumeName: "realtest", AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		Resources: v1.VolumeResourceRequirements{Requests: v1.ResourceList{"storage": q}}}}
	ctx := context.Background()
	claim, err := node.admin.CoreV1().PersistentVolumeClaims(s.name).Create(ctx, pvc, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claim.Status.Phase = v1.ClaimBound
	if _, err := node.admin.CoreV1().PersistentVolumeClaims(s.name).UpdateStatus(ctx, claim, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pv.Spec.ClaimRef = &v1.ObjectReference{Namespace: s.name, Name: "claim", UID: claim.UID}
	if _, err := node.admin.CoreV1().PersistentVolumes().Create(ctx, pv, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const ls = `stat -L -c '%A %u %g' `
	for _, c := range []struct{ name, volume, mount, pod, script, want string }{
		{"cm", `configMap: {name: cm}`, "", "", `cat /v/a /v/b; ` + ls + `/v/a; wc -c < /v/bin`, "12-rw-r--r-- 0 0\n2\n"},
		{"cm-mode", `configMap: {name: cm, defaultMode: 256}`, "", "", ls + `/v/a`, "-r-------- 0 0\n"},
		{"cm-items", `configMap: {name: cm, items: [{key: a, path: x/y, mode: 256}]}`, "", "securityContext: {runAsUser: 1000, fsGroup: 1001}", `cat /v/x/y; ls /v; ` + ls + `/v/x/y`, "1x\n-r--r----- 0 1001\n"},
		{"cm-user", `configMap: {name: cm}`, "", "securityContext: {runAsUser: 1000}", `cat /v/a; ` + ls + `/v/a`, "1-rw-r--r-- 0 0\n"},
		{"cm-optional", `configMap: {name: none, optional: true}`, "", "", `ls /v`, ""},
		{"cm-subpath", `configMap: {name: cm}`, "subPath: a", "", `cat /v`, "1"},
		{"secret", `secret: {secretName: sec}`, "", "", `cat /v/a; ` + ls + `/v/a; grep -c '^tmpfs /v ' /proc/mounts`, "s1-rw-r--r-- 0 0\n1\n"},
		{"secret-fsgroup", `secret: {secretName: sec, defaultMode: 288}`, "", "securityContext: {runAsUser: 1000, fsGroup: 1001}", `cat /v/a; ` + ls + `/v/a`, "s1-r--r----- 0 1001\n"},
		{"projected", `projected: {defaultMode: 288, sources: [{configMap: {name: cm, items: [{key: a, path: c/a}]}}, {secret: {name: sec, items: [{key: b, path: b, mode: 256}]}}, {downwardAPI: {items: [{path: "n", fieldRef: {fieldPath: metadata.name}}]}}]}`, "", "", `cat /v/c/a /v/b /v/n; ` + ls + `/v/c/a; ` + ls + `/v/b`, "1s2projected-r--r----- 0 0\n-r-------- 0 0\n"},
		{"projected-order", `projected: {sources: [{configMap: {name: cm}}, {secret: {name: sec, items: [{key: a, path: a}]}}]}`, "", "", `cat /v/a /v/b`, "s12"},
		{"downward", `downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: cpu, resourceFieldRef: {containerName: c, resource: limits.cpu, divisor: 1m}}, {path: mem, resourceFieldRef: {containerName: c, resource: requests.memory}}]}`, "", "", `cat /v/cpu; echo; cat /v/mem; ` + ls + `/v/cpu`, "200\n1048576-rw-r--r-- 0 0\n"},
		{"empty", `emptyDir: {}`, "", "", ls + `/v; touch /v/x`, "drwxrwxrwx 0 0\n"},
		{"empty-fsgroup", `emptyDir: {}`, "", "securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, supplementalGroups: [4000]}", ls + `/v; touch /v/x; ` + ls + `/v/x; id`, "drwxrwsrwx 0 2000\n-rw-r--r-- 1000 2000\nuid=1000 gid=3000 groups=2000,3000,4000\n"},
		{"memory", `emptyDir: {medium: Memory, sizeLimit: 1Mi}`, "", "securityContext: {runAsUser: 1000}", ls + `/v; grep ' /v ' /proc/mounts | cut -d' ' -f1,3; dd if=/dev/zero of=/v/x bs=1M count=2 2>/dev/null || echo full`, "drwxrwxrwx 0 0\ntmpfs tmpfs\nfull\n"},
		{"host", `hostPath: {path: "` + host + `", type: Directory}`, "readOnly: true", "", `cat /v/f; touch /v/x 2>/dev/null || echo read-only`, "hostread-only\n"},
		{"subpath", `emptyDir: {}`, "subPath: a/b", "", `touch /v/x; ` + ls + `/v`, "drwxrwxrwx 0 0\n"},
		{"subpathexpr", `emptyDir: {}`, "subPathExpr: \"$(POD)/x\"", "", `grep -c "subpathexpr/x /v" /proc/self/mountinfo`, "1\n"},
		{"claim", `persistentVolumeClaim: {claimName: claim}`, "", "", `cat /v/f`, "host"},
		{"image", `image: {reference: "` + image + `", pullPolicy: Never}`, "", "", `ls /v/bin/busybox`, "/v/bin/busybox\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sub := &space{t, s.name}
			mount := "name: v, mountPath: /v"
			if c.mount != "" {
				mount += ", " + c.mount
			}
			got := sub.says(c.name, fmt.Sprintf(`
restartPolicy: Never
volumes: [{name: v, %s}]
%s
containers: [{name: c, command: [sh, -c, %q], volumeMounts: [{%s}], env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}],
  resources: {limits: {cpu: 200m}, requests: {cpu: 1m, memory: 1Mi}}}]`, c.volume, c.pod, c.script, mount))
			if got != c.want {
				t.Errorf("printed %q, want %q", got, c.want)
			}
			sub.gone(c.name)
		})
	}
}

func TestVolumeUpdates(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	ctx := context.Background()
	s.configMap("changed", map[string]string{"k": "old"})
	s.configMap("deleted", map[string]string{"k": "old"})
	s.create("p", `
metadata: {labels: {colour: red}, annotations: {note: a}}
spec:
  volumes:
  - {name: changed, configMap: {name: changed}}
  - {name: deleted, configMap: {name: deleted, optional: true}}
  - {name: created, projected: {sources: [{secret: {name: created, optional: true}}]}}
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: token, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 600, audience: me}}]}}
  containers:
  - name: c
    command: [sleep, "600"]
    volumeMounts: [{name: changed, mountPath: /changed}, {name: deleted, mountPath: /deleted}, {name: created, mountPath: /created}, {name: down, mountPath: /down}, {name: token, mountPath: /token}]
`)
	s.ready("p")
	s.shows("p", "old", "cat", "/changed/k")
	s.shows("p", `colour="red"`, "cat", "/down/labels")
	cms := node.admin.CoreV1().ConfigMaps(s.name)
	cm, err := cms.Get(ctx, "changed", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["k"] = "new"
	if _, err := cms.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := cms.Delete(ctx, "deleted", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.secret("created", map[string]string{"k": "here"})
	s.patch("p", `{"metadata":{"labels":{"colour":"blue"}}}`)
	begin := time.Now()
	s.shows("p", "new", "cat", "/changed/k")
	s.shows("p", `colour="blue"`, "cat", "/down/labels")
	s.shows("p", "here", "cat", "/created/k")
	s.shows("p", "", "ls", "/deleted")
	t.Log("seen after", time.Since(begin))
	if raw, err := s.exec("p", "c", "cat", "/token/token"); err != nil || strings.Count(raw, ".") != 2 {
		t.Error("no token:", raw, err)
	}
}

func TestAMissingVolumeTurnsUp(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `{restartPolicy: Never, volumes: [{name: v, configMap: {name: later}}], containers: [{name: c, command: [cat, /v/k], volumeMounts: [{name: v, mountPath: /v}]}]}`)
	s.event("p", `FailedMount: MountVolume.SetUp failed for volume "v" : configmap "later" not found`)
	s.configMap("later", map[string]string{"k": "late"})
	s.ended("p", v1.PodSucceeded)
	s.logged("p", "late")
}

// TestSubPathChanges follows the published behaviour: a failing subPathExpr heals when the annotation it reads is changed.
func TestSubPathChanges(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create("p", `
metadata: {annotations: {sub: "../bad"}}
spec:
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: c, command: [sleep, "600"], env: [{name: S, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['sub']"}}}], volumeMounts: [{name: v, mountPath: /v, subPathExpr: $(S)}]}
`)
	s.until("p", "refused", func(p *v1.Pod) bool {
		w := container(p, "c").State.Waiting
		return w != nil && w.Reason == "CreateContainerConfigError"
	})
	s.patch("p", `{"metadata":{"annotations":{"sub":"good"}}}`)
	s.ready("p")
}

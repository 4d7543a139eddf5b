package kubelet

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

const manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: x}]}\n"

func TestFolderKeepsTheOthersWhenOneBreaks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	f := &folder{path: dir, node: "n", every: time.Second, log: slog.New(slog.DiscardHandler), last: map[string]*v1.Pod{}, said: map[string]string{}, broken: func(m string) { told = append(told, m) }}
	read := func() map[types.UID]*v1.Pod {
		pods, err := f.read()
		if err != nil {
			t.Fatal(err)
		}
		return pods
	}
	write("a.yaml", manifest)
	write("b.yaml", "kind: Pod")
	first := read()
	if len(first) != 1 {
		t.Fatal(first)
	}
	for _, p := range first {
		if p.Name != "a-n" || p.Spec.NodeName != "n" || !isStatic(p) || p.Spec.RestartPolicy != v1.RestartPolicyAlways {
			t.Error(p)
		}
	}
	write("a.yaml", "{broken")
	if again := read(); len(again) != 1 {
		t.Error("a broken file must keep its last good pod:", again)
	}
	read()
	if len(told) != 2 || !strings.Contains(told[0], "b.yaml") || !strings.Contains(told[1], "a.yaml") {
		t.Errorf("each broken file is told of once: %q", told)
	}
	// One identity in two files: the first has it, the other comes when that goes.
	write("c.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: c, uid: same}\nspec: {containers: [{name: c, image: x}]}\n")
	write("d.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: d, uid: same}\nspec: {containers: [{name: c, image: x}]}\n")
	if p := read()["same"]; p == nil || p.Name != "c-n" || !strings.Contains(told[2], "c.yaml has a pod of the same uid same") {
		t.Errorf("%v, told %q", p, told)
	}
	if err := os.Remove(filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	if p := read()["same"]; p == nil || p.Name != "d-n" {
		t.Error(p)
	}
	if err := os.Remove(filepath.Join(dir, "d.yaml")); err != nil {
		t.Fatal(err)
	}
	write("a.yaml", manifest+"# changed\n")
	for uid := range read() {
		if first[uid] != nil {
			t.Error("another content must be another pod")
		}
	}
	write("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: x}], volumes: [{name: s, secret: {secretName: s}}]}\n")
	if _, err := f.pod(filepath.Join(dir, "a.yaml")); err == nil {
		t.Error("a static pod read a secret through the API")
	}
}

func TestPodLimits(t *testing.T) {
	res := func(cpu, mem string) v1.ResourceRequirements {
		l := v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(mem)}
		return v1.ResourceRequirements{Limits: l, Requests: l}
	}
	pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: res("500m", "1Mi")}, {Resources: res("1", "2Mi")}}}}
	if got, want := podLimits(pod), (limits{shares: 1536, quota: 150000, memory: 3 << 20}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{})
	if got := podLimits(pod); got.quota != 0 || got.memory != 0 {
		t.Error("a container without limits must leave the pod without:", got)
	}
}

func TestParseTaint(t *testing.T) {
	if got, err := parseTaint("a=b:NoSchedule"); err != nil || got != (v1.Taint{Key: "a", Value: "b", Effect: v1.TaintEffectNoSchedule}) {
		t.Error(got, err)
	}
	for _, s := range []string{"", "a", "a:No", ":NoSchedule"} {
		if _, err := parseTaint(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestPruneKeepsTheNewest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	for _, s := range []string{"", ".1", ".2", ".3"} {
		if err := os.WriteFile(path+s, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(path, 1); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(path + "*")
	if len(left) != 2 || left[1] != path+".3" {
		t.Error(left)
	}
}

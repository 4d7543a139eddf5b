package controllermanager

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

func fat(i int) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprint("p", i), Namespace: "a", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"cni": strconv.Itoa(i), corev1.PodDeletionCost: "1"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		OwnerReferences: []metav1.OwnerReference{{UID: "u", Name: "rs"}},
	}}
	p.Spec = corev1.PodSpec{
		NodeName: fmt.Sprint("n", i), Tolerations: []corev1.Toleration{{Key: "k"}},
		Containers: []corev1.Container{{
			Name: "c", Image: "i", Env: []corev1.EnvVar{{Name: "E", Value: "v"}}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
			Resources:    corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}},
			VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
		}},
		Volumes: []corev1.Volume{
			{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}},
			{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprint("c", i)}}},
		},
	}
	at := metav1.Unix(int64(1000+i), 0)
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBurstable, PodIP: fmt.Sprint("10.0.0.", i), PodIPs: []corev1.PodIP{{IP: fmt.Sprint("10.0.0.", i)}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: at}, {Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at, Message: "m"}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "c", ContainerID: fmt.Sprint("id", i), RestartCount: 2, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}},
			AllocatedResources: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
		}},
	}
	return p
}

// TestSlim: pods of one template share what is theirs in common and keep what is their own.
func TestSlim(t *testing.T) {
	s := newSlimmer()
	var pods []*corev1.Pod
	for i := range 2 {
		p := fat(i)
		if _, err := s.slim(p); err != nil {
			t.Fatal(err)
		}
		want := fat(i)
		want.ManagedFields = nil
		want.Spec.Containers[0].Image, want.Spec.Containers[0].Env, want.Spec.Containers[0].VolumeMounts[0].MountPath = "", nil, ""
		want.Spec.Volumes = want.Spec.Volumes[1:]
		delete(want.Annotations, "cni")
		want.Status.QOSClass, want.Status.PodIP, want.Status.Conditions = "", "", want.Status.Conditions[1:]
		want.Status.Conditions[0].Message = ""
		want.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "c", RestartCount: 2}
		if !equality.Semantic.DeepEqual(p, want) {
			t.Errorf("got %+v, not %+v", p, want)
		}
		pods = append(pods, p)
	}
	if &pods[0].Spec.Containers[0] != &pods[1].Spec.Containers[0] || &pods[0].OwnerReferences[0] != &pods[1].OwnerReferences[0] {
		t.Error("two pods of one template hold it twice")
	}
	if &pods[0].Status.ContainerStatuses[0] != &pods[1].Status.ContainerStatuses[0] {
		t.Error("what two pods of one template say of their containers is held twice")
	}
	named := fat(3)
	named.Labels["pod-name"] = "p3"
	if _, err := s.slim(named); err != nil || &named.OwnerReferences[0] != &pods[0].OwnerReferences[0] {
		t.Error("a pod with labels of its own holds its owner by itself", err)
	}
	// An informer that lists shows each object twice. What is shared is not written again: others read it.
	again := pods[0].DeepCopy()
	again.ManagedFields = pods[0].ManagedFields
	again.Spec.Containers[0].Image = "seen"
	if _, err := s.slim(again); err != nil || again.Spec.Containers[0].Image != "seen" {
		t.Error("a slim pod is made slim again", err)
	}
	for _, leave := range []func(p *corev1.Pod){
		func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed },
		func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) },
	} {
		p := fat(5)
		leave(p)
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error", Message: "m", FinishedAt: metav1.Unix(9, 0)}}
		want := p.DeepCopy()
		if _, err := s.slim(p); err != nil || len(p.Status.Conditions) != 2 || p.Status.Conditions[0].Type != corev1.PodScheduled || !equality.Semantic.DeepEqual(p.Status.ContainerStatuses[0].State, want.Status.ContainerStatuses[0].State) {
			t.Errorf("of a pod that failed, or may, not all is left that a failure policy may ask for: %+v, %v", p.Status, err)
		}
	}
	for i := range 3 * templates {
		p := fat(0)
		p.Labels["pod"] = fmt.Sprint(i)
		if _, err := s.slim(p); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.metas); n > templates {
		t.Errorf("%d pieces are remembered", n)
	}
	for i := range templates + 1 {
		p := fat(0)
		p.Spec.NodeName = fmt.Sprint("n", i)
		if _, err := s.slim(p); err != nil || p.Spec.NodeName != fmt.Sprint("n", i) {
			t.Fatal(p.Spec.NodeName, err)
		}
	}
	if n := len(s.words); n > templates {
		t.Errorf("%d words are remembered", n)
	}
}

// fill sets whatever can be set of a value.
func fill(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *metav1.Time:
		*x = metav1.Unix(1000, 0)
		return
	case *resource.Quantity:
		*x = resource.MustParse("1")
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8:
		v.SetUint(1)
	}
}

// stays writes the paths of what is left of a value that was filled; one of which all is left is one line.
func stays(b *strings.Builder, path string, was, is reflect.Value) {
	switch {
	case !is.IsValid() || is.IsZero() || (is.Kind() == reflect.Slice || is.Kind() == reflect.Map) && is.Len() == 0:
	case equality.Semantic.DeepEqual(was.Interface(), is.Interface()):
		fmt.Fprintln(b, path)
	case is.Kind() == reflect.Pointer:
		stays(b, path, was.Elem(), is.Elem())
	case is.Kind() == reflect.Struct:
		for i := range is.NumField() {
			stays(b, path+"."+is.Type().Field(i).Name, was.Field(i), is.Field(i))
		}
	case is.Kind() == reflect.Slice:
		stays(b, path+"[]", was.Index(0), is.Index(0))
	default: // it points to what is the same for all
		fmt.Fprintln(b, path, "(that it is there)")
	}
}

// TestPodFields: testdata/pod.txt holds what of a pod is kept. Who reads a field more adds it to slim_pod.go, and sees it appear there.
func TestPodFields(t *testing.T) {
	const file = "testdata/pod.txt"
	full := func() *corev1.Pod {
		p := &corev1.Pod{}
		fill(reflect.ValueOf(p).Elem())
		v := &p.Spec.Volumes[0].VolumeSource
		v.Projected, v.ConfigMap, v.DownwardAPI, v.EmptyDir, v.HostPath = nil, nil, nil, nil, nil // or the volume goes
		p.Annotations = map[string]string{"x": "x"}
		for _, k := range notes {
			p.Annotations[k] = "x"
		}
		return p
	}
	p := full()
	if _, err := newSlimmer().slim(p); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	stays(&b, "Pod", reflect.ValueOf(*full()), reflect.ValueOf(*p))
	for _, k := range notes {
		if p.Annotations[k] != "" {
			fmt.Fprintf(&b, "Pod.ObjectMeta.Annotations[%s]\n", k)
		}
	}
	if golden.Updating() {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Fatalf("of a pod is kept (-update writes it)\n%s--- want\n%s", b.String(), want)
	}
}

// TestPodsAreSmall: a pod like most, as it comes over the wire, in a cache with the indexes that it has.
func TestPodsAreSmall(t *testing.T) {
	const n, most = 5000, 2200 // pods, bytes each; with 100,000 that is half of what the daemon may take, and these have a claim each
	s := newSlimmer()
	store := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc, "spec.nodeName": func(obj any) ([]string, error) {
		return []string{obj.(*corev1.Pod).Spec.NodeName}, nil
	}})
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	for i := range n {
		p := fat(i % 250)
		p.Name, p.UID, p.ResourceVersion = fmt.Sprintf("web-7d9f8c6b5d-%05d", i), types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i)), strconv.Itoa(100000+i)
		text, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		p = &corev1.Pod{}
		if err := p.Unmarshal(text); err != nil {
			t.Fatal(err)
		}
		if _, err := s.slim(p); err != nil {
			t.Fatal(err)
		}
		if err := store.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	each := int64(live()-before) / n
	if t.Logf("%d bytes a pod, %d of them its struct", each, unsafe.Sizeof(corev1.Pod{})); each > most {
		t.Errorf("a pod takes %d bytes, more than %d", each, most)
	}
	runtime.KeepAlive(store)
	runtime.KeepAlive(s)
}

func BenchmarkSlim(b *testing.B) {
	s := newSlimmer()
	text, err := fat(1).Marshal()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p := &corev1.Pod{}
		if err := p.Unmarshal(text); err != nil {
			b.Fatal(err)
		}
		if _, err := s.slim(p); err != nil {
			b.Fatal(err)
		}
	}
}

package volume

import (
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"golang.org/x/sys/unix"
)

// TestHugePages mounts huge pages. A file on them can be as large as there are pages: none on most hosts of tests, eight in
// the guest of `go run ./hack/vm -run TestHugePages ./pkg/kubelet/volume`.
func TestHugePages(t *testing.T) {
	dir := t.TempDir()
	limit := resource.MustParse("4Mi")
	two := v1.ResourceList{v1.ResourceHugePagesPrefix + "2Mi": resource.MustParse("4Mi")}
	pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: two, Limits: two}}}}}
	v := &v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumHugePages, SizeLimit: &limit}}}
	if err := hugePages(pod, v, dir); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.HUGETLBFS_MAGIC || fs.Bsize != 2<<20 || fs.Blocks != 2 {
		t.Errorf("%+v %v", fs, err)
	}
	pages, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if enough := string(pages) != "0\n"; enough != (err == nil) {
		t.Fatalf("with %s pages: %v", pages, err)
	}
	if err != nil {
		return
	}
	mem[3<<20] = 1
	if err := unix.Munmap(mem); err != nil {
		t.Error(err)
	}
}

func TestHugePageSize(t *testing.T) {
	ask := func(sizes ...v1.ResourceName) *v1.Pod {
		l := v1.ResourceList{}
		for _, s := range sizes {
			l[v1.ResourceHugePagesPrefix+s] = resource.MustParse("1Gi")
		}
		return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: l}}}}}
	}
	for _, c := range []struct {
		pod    *v1.Pod
		medium v1.StorageMedium
		want   string
	}{
		{ask("2Mi"), "HugePages", "2Mi"}, {ask("2Mi", "1Gi"), "HugePages-1Gi", "1Gi"}, {ask("2Mi", "1Gi"), "HugePages", ""}, {ask(), "HugePages", ""}, {ask("2Mi"), "HugePages-big", ""},
	} {
		got, err := hugePageSize(c.pod, c.medium)
		if c.want == "" && err == nil || c.want != "" && got.String() != c.want {
			t.Errorf("%s: %s %v", c.medium, got.String(), err)
		}
	}
}

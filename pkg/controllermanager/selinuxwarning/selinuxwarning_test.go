package selinuxwarning

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// TestWarnings shows what is said while the pods of a script come one after the other, and what the metric tells at the end.
func TestWarnings(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		var b strings.Builder
		c := newController(runtime.Deps{Informers: informers.NewSharedInformerFactory(nil, 0), Event: func(obj apiruntime.Object, kind, reason, message string) {
			p := obj.(*corev1.Pod)
			fmt.Fprintf(&b, "  %s/%s: %s %s %s\n", p.Namespace, p.Name, kind, reason, message)
		}})
		core := c.Informers.Core().V1()
		store(t, c.Informers.Storage().V1().CSIDrivers().Informer(), golden.Objects[storagev1.CSIDriver](t, files["drivers.yaml"])...)
		store(t, core.PersistentVolumes().Informer(), golden.Objects[corev1.PersistentVolume](t, files["volumes.yaml"])...)
		store(t, core.PersistentVolumeClaims().Informer(), golden.Objects[corev1.PersistentVolumeClaim](t, files["claims.yaml"])...)
		for _, p := range golden.Objects[corev1.Pod](t, files["pods.yaml"]) {
			fmt.Fprintf(&b, "%s/%s, %s\n", p.Namespace, p.Name, p.Status.Phase)
			store(t, core.Pods().Informer(), p)
			for range 2 { // what was said once is not said again
				if _, err := c.reconcile(t.Context(), runtime.KeyOf(p)); err != nil {
					t.Fatal(err)
				}
			}
		}
		return b.String() + scrape(t, c.book)
	})
}

func store[T any](t *testing.T, i cache.SharedIndexInformer, list ...T) {
	t.Helper()
	for _, x := range list {
		if err := i.GetStore().Add(x); err != nil {
			t.Fatal(err)
		}
	}
}

// scrape shows a book's conflicts as the metric tells them.
func scrape(t *testing.T, b *book) string {
	t.Helper()
	c := collector{books: map[*book]bool{b: true}}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// TestBook: after any comings and goings the conflicts that stand are those of the pods that are there, and each was news once,
// when it came.
func TestBook(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b, there := newBook(), map[runtime.Key][]Use{}
		for range rapid.IntRange(1, 20).Draw(r, "steps") {
			pod := runtime.Key{Namespace: "a", Name: rapid.SampledFrom([]string{"p", "q", "r"}).Draw(r, "pod")}
			var uses []Use
			for _, v := range []string{"x", "y"} {
				if rapid.Bool().Draw(r, "uses") {
					uses = append(uses, Use{v, rapid.SampledFrom([]string{"", ":::s0", ":::s1", "u:::s0"}).Draw(r, "label"), rapid.SampledFrom([]corev1.PodSELinuxChangePolicy{"Recursive", "MountOption"}).Draw(r, "policy")})
				}
			}
			there[pod] = uses
			stood := b.all()
			news := b.put(pod, uses)
			for i, c := range news {
				if slices.Contains(stood, c) || slices.Contains(news[:i], c) {
					r.Fatalf("%v is told again", c)
				}
				stood = append(stood, c)
			}
			for _, c := range b.all() {
				if !slices.Contains(stood, c) {
					r.Fatalf("%v is not told", c)
				}
			}
		}
		want := map[Conflict]bool{}
		for p, mine := range there {
			for q, others := range there {
				for _, u := range mine {
					for _, v := range others {
						if p != q && u.Volume == v.Volume {
							for _, c := range conflicts(p, u, q, v) {
								want[c] = true
							}
						}
					}
				}
			}
		}
		got := b.all()
		for _, c := range got {
			if !want[c] {
				r.Fatalf("%v is no conflict of %v", c, there)
			}
		}
		if len(got) != len(want) {
			r.Fatalf("%d conflicts, not %d, of %v", len(got), len(want), there)
		}
	})
}

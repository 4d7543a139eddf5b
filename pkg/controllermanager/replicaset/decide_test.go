package replicaset

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		s := Snapshot{
			Set: golden.Object[appsv1.ReplicaSet](t, files["set.yaml"]), Pods: golden.Objects[corev1.Pod](t, files["pods.yaml"]),
			Related: map[string]int{}, Settled: files["open"] == "", Now: noon,
		}
		for _, p := range s.Pods {
			s.Related[p.Spec.NodeName]++
		}
		p := decide(s)
		if text := strings.TrimSpace(files["error"]); text != "" {
			p.failed(s, errors.New(text))
		} else {
			p.failed(s, nil)
		}
		return p.String()
	})
}

// TestNeverTooMany: whatever pods there are, after the plan there are as many as wanted, or one burst nearer to it, and
// nothing is planned while what was done is not seen.
func TestNeverTooMany(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Int32Range(0, 700).Draw(t, "want")
		s := Snapshot{Set: &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Replicas: &want}}, Settled: rapid.Bool().Draw(t, "settled"), Now: noon}
		active := 0
		for i := range rapid.IntRange(0, 700).Draw(t, "pods") {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), UID: types.UID(fmt.Sprint(i))}}
			if rapid.IntRange(0, 3).Draw(t, "state") == 0 {
				p.DeletionTimestamp = &metav1.Time{Time: noon}
			} else {
				active++
			}
			s.Pods = append(s.Pods, p)
		}
		p := decide(s)
		seen := map[types.UID]bool{}
		for _, v := range p.Delete {
			if v.DeletionTimestamp != nil || seen[v.UID] {
				t.Fatalf("%s is deleted twice", v.Name)
			}
			seen[v.UID] = true
		}
		after := active + p.Create - len(p.Delete)
		switch {
		case !s.Settled && (p.Create > 0 || len(p.Delete) > 0):
			t.Fatalf("planned before it settled: %s", p)
		case p.Create > 0 && len(p.Delete) > 0:
			t.Fatal("creates and deletes in one plan")
		case p.Create > burst || len(p.Delete) > burst:
			t.Fatal("more than one burst")
		case active <= int(want) && after > int(want), active >= int(want) && after < int(want):
			t.Fatalf("%d are wanted, %d are there, %d will be", want, active, after)
		case s.Settled && after != int(want) && p.Create != burst && len(p.Delete) != burst:
			t.Fatalf("%d are wanted, %d are there, only %d will be", want, active, after)
		}
	})
}

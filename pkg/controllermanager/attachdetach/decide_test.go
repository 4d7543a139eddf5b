package attachdetach

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// TestDecide shows what a node n1 gets and gives back: volumes.yaml are those there are, each wanted by the pods of the file
// that name a claim like it, on whatever node; attachments name themselves.
func TestDecide(t *testing.T) {
	golden.Run(t, func(t *testing.T, files map[string]string) string {
		now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		s := Snapshot{Name: "n1", Now: now, NoForce: files["noforce"] != ""}
		if files["node.yaml"] != "" {
			s.Node = golden.Object[corev1.Node](t, files["node.yaml"])
		}
		pods, attachments := golden.Objects[corev1.Pod](t, files["pods.yaml"]), golden.Objects[storagev1.VolumeAttachment](t, files["attachments.yaml"])
		for _, pv := range golden.Objects[corev1.PersistentVolume](t, files["volumes.yaml"]) {
			v, ok := volumeOf(pv, func(driver string) bool { return driver != "no-attach" })
			if !ok {
				continue
			}
			w := Want{Volume: v}
			for _, p := range pods {
				switch {
				case p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != pv.Name:
				case p.Spec.NodeName != "n1":
					w.Others = append(w.Others, p.Name)
				case uses(p, s.Node):
					w.Pods = append(w.Pods, p)
				}
			}
			for _, a := range attachments {
				if *a.Spec.Source.PersistentVolumeName != pv.Name {
					continue
				}
				if a.Spec.NodeName != "n1" {
					w.Nodes = append(w.Nodes, a.Spec.NodeName)
					continue
				}
				a.Name = v.attachment("n1")
				idle := now
				if d, err := time.ParseDuration(a.Annotations["idle"]); err == nil {
					idle = now.Add(-d)
				}
				s.Haves = append(s.Haves, Have{v, a, idle})
			}
			if len(w.Pods) > 0 {
				s.Wants = append(s.Wants, w)
			}
		}
		return decide(s).String()
	})
}

// TestNeverTwice lets random volumes be wanted and had: one for one node is never attached while another has it, one in use on
// a node that is well is never taken, and what is reported is had and stays.
func TestNeverTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		well := rapid.Bool().Draw(t, "well")
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Annotations: map[string]string{managedNote: "true"}}}
		if well {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		}
		s := Snapshot{Name: "n1", Node: n, Now: time.Unix(1e9, 0)}
		used, stays := map[corev1.UniqueVolumeName]bool{}, map[corev1.UniqueVolumeName]bool{}
		for i := range rapid.IntRange(0, 6).Draw(t, "volumes") {
			v := Volume{PV: string(rune('a' + i)), Driver: "d", Handle: string(rune('a' + i)), Exclusive: rapid.Bool().Draw(t, "exclusive")}
			if rapid.Bool().Draw(t, "in use") {
				used[v.Name()] = true
				n.Status.VolumesInUse = append(n.Status.VolumesInUse, v.Name())
			}
			if rapid.Bool().Draw(t, "wanted") {
				w := Want{Volume: v, Pods: []*corev1.Pod{{}}}
				if rapid.Bool().Draw(t, "elsewhere") {
					w.Nodes = []string{"n2"}
				}
				s.Wants = append(s.Wants, w)
				stays[v.Name()] = true
			}
			if rapid.Bool().Draw(t, "had") {
				a := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: v.attachment("n1")}, Spec: storagev1.VolumeAttachmentSpec{Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &v.PV}}}
				a.Status.Attached = rapid.Bool().Draw(t, "attached")
				s.Haves = append(s.Haves, Have{v, a, s.Now.Add(-time.Duration(rapid.IntRange(0, 12).Draw(t, "idle")) * time.Minute)})
			}
		}
		p := decide(s)
		going := map[string]bool{}
		for _, a := range p.Detach {
			going[a.Name] = true
		}
		for _, w := range s.Wants {
			for _, v := range p.Attach {
				if v == w.Volume && v.Exclusive && len(w.Nodes) > 0 {
					t.Fatalf("%s is attached twice", v.PV)
				}
			}
		}
		for _, h := range s.Haves {
			if going[h.Attachment.Name] && (stays[h.Name()] || used[h.Name()] && well) {
				t.Fatalf("%s is taken away", h.PV)
			}
			if p.Report == nil {
				continue
			}
			for _, r := range *p.Report {
				if r.Name == h.Name() && (going[h.Attachment.Name] || !h.Attachment.Status.Attached) {
					t.Fatalf("%s is reported", r.Name)
				}
			}
		}
	})
}

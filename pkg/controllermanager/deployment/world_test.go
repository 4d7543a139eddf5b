package deployment

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
)

// world plays everybody else: the apiserver, the replica set controller and the kubelet.
type world struct {
	now    time.Time
	d      *appsv1.Deployment
	sets   []*appsv1.ReplicaSet
	pods   map[string][]bool // by set: available or not
	broken string            // an image whose pods never become available
	made   int
}

func newWorld(d *appsv1.Deployment) *world {
	d.UID = "d"
	d.Generation = 1
	return &world{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), d: d, pods: map[string][]bool{}}
}

func image(s *appsv1.ReplicaSet) string { return s.Spec.Template.Spec.Containers[0].Image }

// turn lets the deployment decide once; "" says that it had nothing to do.
func (w *world) turn() (string, Plan) {
	old := 0
	for _, s := range w.sets {
		if !sameTemplate(&s.Spec.Template, &w.d.Spec.Template) {
			old += len(w.pods[s.Name])
		}
	}
	var seen []*appsv1.ReplicaSet
	for _, s := range w.sets {
		seen = append(seen, s.DeepCopy())
	}
	p := decide(Snapshot{Deployment: w.d.DeepCopy(), Sets: seen, Hash: strings.ReplaceAll(w.d.Spec.Template.Spec.Containers[0].Image, ":", "-"), OldPods: old, Now: w.now})
	if p.Create != nil {
		s := p.Create.DeepCopy()
		w.made++
		s.UID, s.Generation = types.UID(fmt.Sprint("s", w.made)), 1
		s.CreationTimestamp.Time = w.now.Add(time.Duration(w.made) * time.Second)
		w.sets = append(w.sets, s)
	}
	for _, s := range p.Touch {
		w.put(s)
	}
	for _, s := range p.Scale {
		w.put(s.Set)
	}
	for _, s := range p.Remove {
		w.sets = slices.DeleteFunc(w.sets, func(x *appsv1.ReplicaSet) bool { return x.UID == s.UID })
	}
	if p.Revision != "" {
		if w.d.Annotations == nil {
			w.d.Annotations = map[string]string{}
		}
		w.d.Annotations[revisionNote] = p.Revision
	}
	if p.Status != nil {
		w.d.Status = *p.Status
	}
	return p.String(), p
}

func (w *world) put(s *appsv1.ReplicaSet) {
	i := slices.IndexFunc(w.sets, func(x *appsv1.ReplicaSet) bool { return x.UID == s.UID })
	n := s.DeepCopy()
	if replicas(w.sets[i]) != replicas(n) {
		n.Generation++
	}
	w.sets[i] = n
}

// fit is the replica set controller: as many pods as each set asks for, those not available go first.
func (w *world) fit(s *appsv1.ReplicaSet) {
	have, want := w.pods[s.Name], int(replicas(s))
	for len(have) < want {
		have = append(have, false)
	}
	for len(have) > want {
		i := max(0, slices.Index(have, false))
		have = slices.Delete(slices.Clone(have), i, i+1)
	}
	w.pods[s.Name] = have
}

// count writes a set's status.
func (w *world) count(s *appsv1.ReplicaSet) {
	n := int32(0)
	for _, ok := range w.pods[s.Name] {
		if ok {
			n++
		}
	}
	s.Status = appsv1.ReplicaSetStatus{Replicas: int32(len(w.pods[s.Name])), ReadyReplicas: n, AvailableReplicas: n, ObservedGeneration: s.Generation}
}

// rest lets the replica set controller and the kubelet work once: pods made before become available, missing ones are made.
func (w *world) rest() bool {
	moved := false
	for i, s := range w.sets {
		n := s.DeepCopy()
		for j, ok := range w.pods[n.Name] {
			if !ok && image(n) != w.broken {
				w.pods[n.Name][j], moved = true, true
			}
		}
		was := n.Status
		before := len(w.pods[n.Name])
		w.fit(n)
		w.count(n)
		moved = moved || before != len(w.pods[n.Name]) || was.Replicas != n.Status.Replicas || was.AvailableReplicas != n.Status.AvailableReplicas || was.ObservedGeneration != n.Status.ObservedGeneration
		w.sets[i] = n
	}
	w.now = w.now.Add(time.Second)
	return moved
}

func (w *world) String() string {
	var b strings.Builder
	for _, s := range w.sets {
		fmt.Fprintf(&b, "%s revision %s: %d of %d available\n", s.Name, s.Annotations[revisionNote], s.Status.AvailableReplicas, replicas(s))
	}
	return b.String()
}

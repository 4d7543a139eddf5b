package kubelet

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// mirrors keeps one API pod per static pod, so that users see it, and removes those whose static pod is gone.
type mirrors struct {
	k *Kubelet

	mu     sync.Mutex
	static map[types.UID]*v1.Pod
	api    map[types.NamespacedName]*v1.Pod
	poke   chan struct{}
}

func newMirrors(k *Kubelet) *mirrors {
	return &mirrors{k: k, static: map[types.UID]*v1.Pod{}, api: map[types.NamespacedName]*v1.Pod{}, poke: make(chan struct{}, 1)}
}

func key(p *v1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// of is the mirror of a static pod; nil when there is none, or one of an older content.
func (m *mirrors) of(pod *v1.Pod) *v1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.api[key(pod)]
	if p == nil || p.DeletionTimestamp != nil || p.Annotations[annotationMirror] != pod.Annotations[annotationHash] {
		return nil
	}
	return p
}

func (m *mirrors) setStatic(pods map[types.UID]*v1.Pod) {
	m.mu.Lock()
	m.static = pods
	m.mu.Unlock()
	m.wake()
}

func (m *mirrors) setAPI(pod *v1.Pod, gone bool) {
	m.mu.Lock()
	if gone {
		delete(m.api, key(pod))
	} else {
		m.api[key(pod)] = pod
	}
	m.mu.Unlock()
	m.wake()
}

func (m *mirrors) wake() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

func (m *mirrors) run(ctx context.Context) {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.poke:
		case <-t.C:
		}
		if m.k.apiReady() {
			m.sync(ctx)
		}
	}
}

func (m *mirrors) sync(ctx context.Context) {
	m.mu.Lock()
	want := map[types.NamespacedName]*v1.Pod{}
	for _, p := range m.static {
		want[key(p)] = p
	}
	have := map[types.NamespacedName]*v1.Pod{}
	for k, p := range m.api {
		have[k] = p
	}
	m.mu.Unlock()
	for k, p := range have {
		s := want[k]
		if s != nil && p.Annotations[annotationMirror] == s.Annotations[annotationHash] && p.DeletionTimestamp == nil {
			continue
		}
		zero, uid := int64(0), p.UID
		err := m.k.client.Pods.Delete(ctx, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			m.k.log.Warn("removing a mirror pod", "pod", k.String(), "err", err)
		}
		if s == nil {
			continue
		}
		delete(have, k)
	}
	node := m.k.node.Object()
	for k, s := range want {
		if have[k] != nil || node == nil {
			continue
		}
		p := s.DeepCopy()
		p.UID, p.ResourceVersion, p.Status, p.Generation = "", "", v1.PodStatus{}, 0
		p.Annotations[annotationMirror] = s.Annotations[annotationHash]
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &yes}}
		made, err := m.k.client.Pods.Create(ctx, p.Namespace, p)
		if err != nil {
			if !apierrors.IsAlreadyExists(err) {
				m.k.log.Warn("making a mirror pod", "pod", k.String(), "err", err)
			}
			continue
		}
		m.mu.Lock()
		if m.api[k] == nil {
			m.api[k] = made
		}
		m.mu.Unlock()
		m.k.pods.Wake(string(s.UID))
	}
}

// Package nodettl tells kubelets, in an annotation, how long they may keep secrets and config maps: the longer the more
// nodes there are.
//
// A node brings its key; when the number of nodes passes a bound, all of them do. The step that holds is the only state,
// guarded by a mutex.
package nodettl

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	nodes corelisters.NodeLister

	mu   sync.Mutex
	step int
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	nodes := d.Informers.Core().V1().Nodes()
	c := &controller{Deps: d, nodes: nodes.Lister()}
	return &runtime.Controller{
		Name: "ttl-controller", Account: "ttl-controller", Queue: "ttlcontroller", For: "how long nodes may keep what they read",
		Watches: []runtime.Watch{{What: "nodes", Informer: nodes.Informer(), Keys: c.concerned}},
		Writes:  []string{"nodes"}, Reconcile: c.reconcile,
	}
}

// concerned answers the node, and every node if there are so many now that the time is another.
func (c *controller) concerned(_, obj metav1.Object) []runtime.Key {
	keys := []runtime.Key{runtime.KeyOf(obj)}
	all, err := c.nodes.List(labels.Everything())
	if err != nil {
		return keys
	}
	c.mu.Lock()
	was := c.step
	c.step = decide(was, len(all))
	changed := was != c.step
	c.mu.Unlock()
	if !changed {
		return keys
	}
	for _, n := range all {
		keys = append(keys, runtime.KeyOf(n))
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	n, err := c.nodes.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	want := strconv.Itoa(steps[c.step].seconds)
	c.mu.Unlock()
	if n.Annotations[corev1.ObjectTTLAnnotationKey] == want {
		return 0, nil
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": n.UID, "annotations": map[string]string{corev1.ObjectTTLAnnotationKey: want}}})
	if err != nil {
		return 0, err
	}
	_, err = c.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, body, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

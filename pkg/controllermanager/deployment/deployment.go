// Package deployment moves replica sets from one pod template to the next.
//
// The flow: gather the deployment's sets, decide one step, write it; the sets' changed status brings the next turn. All
// of the reasoning is in decide*.go.
package deployment

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/dump"
	"k8s.io/apimachinery/pkg/util/rand"
	appslisters "k8s.io/client-go/listers/apps/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	deployments appslisters.DeploymentLister
	sets        runtime.Children[appsv1.ReplicaSet]
	pods        runtime.Children[corev1.Pod]
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	deps, sets, pods := d.Informers.Apps().V1().Deployments(), d.Informers.Apps().V1().ReplicaSets(), d.Informers.Core().V1().Pods()
	c := &controller{
		Deps: d, deployments: deps.Lister(), sets: runtime.ByController[appsv1.ReplicaSet](sets.Informer()),
		pods: runtime.ByController[corev1.Pod](pods.Informer()),
	}
	byKey := func(obj metav1.Object) *appsv1.ReplicaSet {
		o, exists, err := sets.Informer().GetIndexer().GetByKey(obj.GetNamespace() + "/" + metav1.GetControllerOf(obj).Name)
		if err != nil || !exists {
			return nil
		}
		return o.(*appsv1.ReplicaSet)
	}
	return &runtime.Controller{
		Name: "deployment-controller", Account: "deployment-controller", Queue: "deployment", For: "the replica sets of a deployment, from one template to the next",
		Watches: []runtime.Watch{
			{What: "deployments", Informer: deps.Informer(), Keys: runtime.Self},
			{What: "replicasets", Informer: sets.Informer(), Keys: runtime.Owner("Deployment")},
			// Recreate waits for the end of old pods.
			{What: "pods", Informer: pods.Informer(), Keys: func(old, obj metav1.Object) []runtime.Key {
				if ref := metav1.GetControllerOf(obj); old != nil || obj.GetDeletionTimestamp() == nil || ref == nil || ref.Kind != "ReplicaSet" {
					return nil
				}
				if set := byKey(obj); set != nil {
					return runtime.Owner("Deployment")(nil, set)
				}
				return nil
			}},
		},
		Writes: []string{"replicasets", "deployments", "deployments/status"}, Workers: 8, Reconcile: c.reconcile,
	}
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	d, err := c.deployments.Deployments(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if d.Spec.Selector == nil || len(d.Spec.Selector.MatchLabels)+len(d.Spec.Selector.MatchExpressions) == 0 {
		c.Event(d, runtime.Warning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		return 0, nil
	}
	s := Snapshot{Deployment: d, Hash: hash(&d.Spec.Template, d.Status.CollisionCount), Now: time.Now()}
	if s.Sets, err = c.claim(ctx, d); err != nil {
		return 0, err
	}
	for _, set := range s.Sets {
		if !sameTemplate(&set.Spec.Template, &d.Spec.Template) {
			for _, p := range c.pods.Of(set.UID) {
				if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
					s.OldPods++
				}
			}
		}
	}
	p := decide(s)
	if text := p.String(); text != "" {
		slog.Debug("deployment", "key", key.String(), "plan", text)
	}
	return p.Again, c.apply(ctx, d, p)
}

// claim answers the sets the deployment controls, adopting those that match and belong to nobody.
func (c *controller) claim(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	sets := c.sets.Of(d.UID)
	sel, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("the selector cannot be read: %w", err)
	}
	for _, s := range c.sets.Orphans(d.Namespace) {
		if !sel.Matches(labels.Set(s.Labels)) || s.DeletionTimestamp != nil || d.DeletionTimestamp != nil {
			continue
		}
		patch := fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"Deployment","name":%q,"uid":%q,"controller":true,"blockOwnerDeletion":true}],"uid":%q}}`, d.Name, d.UID, s.UID)
		if _, err := c.Client.AppsV1().ReplicaSets(s.Namespace).Patch(ctx, s.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// hash names a template, as upstream does, so that both would give a set the same name.
func hash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%v", dump.ForHash(*t)) // a hash takes everything
	if collisions != nil {
		b := make([]byte, 8)
		b[0], b[1], b[2], b[3] = byte(*collisions), byte(*collisions>>8), byte(*collisions>>16), byte(*collisions>>24)
		_, _ = h.Write(b)
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

func (c *controller) apply(ctx context.Context, d *appsv1.Deployment, p Plan) error {
	sets := c.Client.AppsV1().ReplicaSets(d.Namespace)
	var errs []error
	if p.Create != nil {
		made, err := sets.Create(ctx, p.Create, metav1.CreateOptions{})
		switch {
		case apierrors.IsAlreadyExists(err):
			return c.collided(ctx, d, p.Create)
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil
		case err != nil:
			c.Event(d, runtime.Warning, "ReplicaSetCreateError", fmt.Sprintf("Failed to create new replica set %q: %v", p.Create.Name, err))
			return err
		}
		if n := replicas(made); n > 0 {
			c.Event(d, runtime.Normal, "ScalingReplicaSet", fmt.Sprintf("Scaled up replica set %s from 0 to %d", made.Name, n))
		}
	}
	for _, s := range p.Touch {
		if _, err := sets.Update(ctx, s, metav1.UpdateOptions{}); err != nil {
			errs = append(errs, err)
		}
	}
	for _, s := range p.Scale {
		if len(errs) > 0 {
			break
		}
		if _, err := sets.Update(ctx, s.Set, metav1.UpdateOptions{}); err != nil {
			errs = append(errs, err)
			continue
		}
		word, from := "down", replicas(s.Set)+s.By
		if s.Up {
			word, from = "up", replicas(s.Set)-s.By
		}
		c.Event(d, runtime.Normal, "ScalingReplicaSet", fmt.Sprintf("Scaled %s replica set %s from %d to %d", word, s.Set.Name, from, replicas(s.Set)))
	}
	for _, s := range p.Remove {
		if err := sets.Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, c.write(ctx, d, p))
	return errors.Join(errs...)
}

// write brings revision and status to the deployment itself.
func (c *controller) write(ctx context.Context, d *appsv1.Deployment, p Plan) error {
	next := d.DeepCopy()
	if p.Revision != "" {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, revisionNote, p.Revision)
		got, err := c.Client.AppsV1().Deployments(d.Namespace).Update(ctx, next, metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		next = got
	}
	if p.Status == nil {
		return nil
	}
	next.Status = *p.Status
	_, err := c.Client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
	return err
}

// collided is called when the new set's name is taken. If it is by our own set, the cache is behind; by another's, the
// next name is tried.
func (c *controller) collided(ctx context.Context, d *appsv1.Deployment, want *appsv1.ReplicaSet) error {
	have, err := c.Client.AppsV1().ReplicaSets(d.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if ref := metav1.GetControllerOf(have); ref != nil && ref.UID == d.UID && sameTemplate(&have.Spec.Template, &want.Spec.Template) {
		return nil
	}
	next := d.DeepCopy()
	n := int32(1)
	if d.Status.CollisionCount != nil {
		n = *d.Status.CollisionCount + 1
	}
	next.Status.CollisionCount = &n
	if _, err := c.Client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return fmt.Errorf("the name %s is taken, the next one is tried", want.Name)
}

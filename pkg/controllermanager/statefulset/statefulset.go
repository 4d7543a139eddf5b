// Package statefulset keeps numbered pods that have a name and storage of their own.
//
// The flow: gather the set's pods and revisions, decide one step, make the claims of a pod before the pod, write the
// status; each pod's change brings the next turn. Names are fixed, so creating one twice is impossible by itself.
package statefulset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/revision"
	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

var setKind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

type controller struct {
	runtime.Deps
	sets      appslisters.StatefulSetLister
	claims    corelisters.PersistentVolumeClaimLister
	pods      runtime.Children[corev1.Pod]
	revisions runtime.Children[appsv1.ControllerRevision]
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	apps, core := d.Informers.Apps().V1(), d.Informers.Core().V1()
	c := &controller{
		Deps: d, sets: apps.StatefulSets().Lister(), claims: core.PersistentVolumeClaims().Lister(),
		pods:      runtime.ByController[corev1.Pod](core.Pods().Informer()),
		revisions: runtime.ByController[appsv1.ControllerRevision](apps.ControllerRevisions().Informer()),
	}
	return &runtime.Controller{
		Name: "statefulset-controller", Account: "statefulset-controller", Queue: "statefulset", For: "numbered pods with a name and storage of their own",
		Watches: []runtime.Watch{
			{What: "statefulsets", Informer: apps.StatefulSets().Informer(), Keys: runtime.Self},
			{What: "controllerrevisions", Informer: apps.ControllerRevisions().Informer(), Keys: runtime.Owner("StatefulSet")},
			{What: "pods", Informer: core.Pods().Informer(), Keys: runtime.Owner("StatefulSet")},
			// A claim that is gone may have been waited for.
			{What: "persistentvolumeclaims", Informer: core.PersistentVolumeClaims().Informer(), Keys: c.claimed},
		},
		Writes: []string{"pods", "persistentvolumeclaims", "controllerrevisions", "statefulsets/status"}, Reconcile: c.reconcile,
	}
}

// claimed answers the sets whose claim appeared, changed owners, or went.
func (c *controller) claimed(old, obj metav1.Object) []runtime.Key {
	claim := obj.(*corev1.PersistentVolumeClaim)
	if old != nil && equality.Semantic.DeepEqual(old.GetOwnerReferences(), claim.OwnerReferences) {
		return nil
	}
	sets, err := c.sets.StatefulSets(claim.Namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	var keys []runtime.Key
	for _, s := range sets {
		if claimOrdinal(s, claim) >= 0 {
			keys = append(keys, runtime.KeyOf(s))
		}
	}
	return keys
}

// claimsOf answers the claims of a set's pods, of those that were too. Those of pods that are to go, and take them along, are
// asked for if the cache does not show them yet: later nobody would know with whom they were to go.
func (c *controller) claimsOf(ctx context.Context, set *appsv1.StatefulSet, pods []*corev1.Pod) ([]*corev1.PersistentVolumeClaim, error) {
	policy := set.Spec.PersistentVolumeClaimRetentionPolicy
	if len(set.Spec.VolumeClaimTemplates) == 0 || policy == nil {
		return nil, nil
	}
	all, err := c.claims.PersistentVolumeClaims(set.Namespace).List(labels.Everything())
	if err != nil {
		return nil, err
	}
	claims, shown := []*corev1.PersistentVolumeClaim{}, map[string]bool{}
	for _, x := range all {
		if claimOrdinal(set, x) >= 0 {
			claims, shown[x.Name] = append(claims, x), true
		}
	}
	if policy.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
		return claims, nil
	}
	for _, name := range leavingClaims(set, pods) {
		if shown[name] {
			continue
		}
		x, err := c.Client.CoreV1().PersistentVolumeClaims(set.Namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("asking for claim %s: %w", name, err)
		}
		claims = append(claims, x)
	}
	return claims, nil
}

// own writes the owners of claims.
func (c *controller) own(ctx context.Context, claims []*corev1.PersistentVolumeClaim) error {
	return runtime.Each(len(claims), func(i int) error {
		_, err := c.Client.CoreV1().PersistentVolumeClaims(claims[i].Namespace).Update(ctx, claims[i], metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	set, err := c.sets.StatefulSets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) || err == nil && (set.Spec.Selector == nil || set.DeletionTimestamp != nil) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	history, err := revision.Ensure(ctx, c.Deps, set, setKind, &set.Spec.Template, c.revisions)
	if err != nil {
		return 0, err
	}
	s := Snapshot{Set: set, Update: history.Current.Name, Current: history.Current.Name, Now: time.Now()}
	for _, r := range history.All {
		if r.Name == set.Status.CurrentRevision {
			s.Current = r.Name
		}
	}
	if s.Pods, err = runtime.Claim(ctx, c.Deps, set, setKind, set.Spec.Selector, c.pods); err != nil {
		return 0, err
	}
	if s.Claims, err = c.claimsOf(ctx, set, s.Pods); err != nil {
		return 0, err
	}
	p := decide(s)
	if text := p.String(); text != "" {
		slog.Debug("stateful set", "key", key.String(), "plan", text)
	}
	if err := c.own(ctx, p.Own); err != nil {
		return 0, err // a pod must not go before its claims know whether to go along
	}
	err = errors.Join(c.delete(ctx, set, p.Delete), c.create(ctx, set, history, p.Create))
	if p.Status != nil {
		next := set.DeepCopy()
		next.Status = *p.Status
		_, serr := c.Client.AppsV1().StatefulSets(set.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
		err = errors.Join(err, serr)
	}
	names := map[string]bool{s.Current: true}
	for _, pod := range s.Pods {
		names[revisionOf(pod)] = true
	}
	used := map[string]bool{}
	for _, r := range history.All {
		if names[r.Name] {
			used[revision.Hash(r)] = true
		}
	}
	return p.Again, errors.Join(err, revision.Trim(ctx, c.Deps, history, set.Spec.RevisionHistoryLimit, used))
}

func (c *controller) create(ctx context.Context, set *appsv1.StatefulSet, h *revision.History, births []Birth) error {
	return runtime.Each(len(births), func(i int) error {
		p, err := newPod(set, h, births[i])
		if err != nil {
			return err
		}
		if err := c.claim(ctx, set, births[i].Ordinal); err != nil {
			if runtime.LostRace(err) {
				return err
			}
			c.Event(set, runtime.Warning, "FailedCreate", fmt.Sprintf("create Claim for Pod %s in StatefulSet %s failed error: %v", p.Name, set.Name, err))
			return err
		}
		_, err = c.Client.CoreV1().Pods(set.Namespace).Create(ctx, p, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			c.Event(set, runtime.Warning, "FailedCreate", fmt.Sprintf("create Pod %s in StatefulSet %s failed error: %v", p.Name, set.Name, err))
			return err
		}
		c.Event(set, runtime.Normal, "SuccessfulCreate", fmt.Sprintf("create Pod %s in StatefulSet %s successful", p.Name, set.Name))
		return nil
	})
}

func (c *controller) delete(ctx context.Context, set *appsv1.StatefulSet, pods []*corev1.Pod) error {
	return runtime.Each(len(pods), func(i int) error {
		p := pods[i]
		if err := runtime.DeletePod(ctx, c.Deps, p); err != nil {
			c.Event(set, runtime.Warning, "FailedDelete", fmt.Sprintf("delete Pod %s in StatefulSet %s failed error: %v", p.Name, set.Name, err))
			return err
		}
		c.Event(set, runtime.Normal, "SuccessfulDelete", fmt.Sprintf("delete Pod %s in StatefulSet %s successful", p.Name, set.Name))
		return nil
	})
}

// claim makes the claims of one pod; those that are there are kept, with what is on them.
func (c *controller) claim(ctx context.Context, set *appsv1.StatefulSet, n int) error {
	for i := range set.Spec.VolumeClaimTemplates {
		t := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		t.Name, t.Namespace = claimName(set, t.Name, n), set.Namespace
		if have, err := c.claims.PersistentVolumeClaims(set.Namespace).Get(t.Name); err == nil {
			if leaving(set, have, n) {
				return fmt.Errorf("the claim %s goes with the pod before this one: %w", t.Name, errLeaving)
			}
			continue
		}
		if p := set.Spec.PersistentVolumeClaimRetentionPolicy; p != nil && p.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
			t.OwnerReferences = []metav1.OwnerReference{runtime.OwnedBy(set, setKind)}
		}
		for k, v := range set.Spec.Selector.MatchLabels {
			metav1.SetMetaDataLabel(&t.ObjectMeta, k, v)
		}
		t.Status = corev1.PersistentVolumeClaimStatus{}
		if _, err := c.Client.CoreV1().PersistentVolumeClaims(set.Namespace).Create(ctx, t, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// errLeaving is why a pod has to wait: the key is tried again when the claim is gone.
var errLeaving = apierrors.NewConflict(corev1.Resource("persistentvolumeclaims"), "", errors.New("it is being deleted"))

// newPod is the set's pod of one number, made from the template of its revision.
func newPod(set *appsv1.StatefulSet, h *revision.History, b Birth) (*corev1.Pod, error) {
	t := set.Spec.Template.DeepCopy()
	for _, r := range h.All {
		if r.Name == b.Revision && r.Name != h.Current.Name {
			var old struct {
				Spec struct{ Template corev1.PodTemplateSpec }
			}
			if err := json.Unmarshal(r.Data.Raw, &old); err != nil {
				return nil, fmt.Errorf("reading revision %s: %w", r.Name, err)
			}
			t = &old.Spec.Template
		}
	}
	name := set.Name + "-" + strconv.Itoa(b.Ordinal)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: set.Namespace, Name: name, Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
		OwnerReferences: []metav1.OwnerReference{runtime.OwnedBy(set, setKind)},
	}, Spec: t.Spec}
	metav1.SetMetaDataLabel(&p.ObjectMeta, appsv1.ControllerRevisionHashLabelKey, b.Revision)
	metav1.SetMetaDataLabel(&p.ObjectMeta, appsv1.StatefulSetPodNameLabel, name)
	metav1.SetMetaDataLabel(&p.ObjectMeta, appsv1.PodIndexLabel, strconv.Itoa(b.Ordinal))
	p.Spec.Hostname, p.Spec.Subdomain = name, set.Spec.ServiceName
	for _, ct := range set.Spec.VolumeClaimTemplates {
		v := corev1.Volume{Name: ct.Name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, ct.Name, b.Ordinal)}}}
		replaced := false
		for i := range p.Spec.Volumes {
			if strings.EqualFold(p.Spec.Volumes[i].Name, ct.Name) {
				p.Spec.Volumes[i], replaced = v, true
			}
		}
		if !replaced {
			p.Spec.Volumes = append(p.Spec.Volumes, v)
		}
	}
	return p, nil
}

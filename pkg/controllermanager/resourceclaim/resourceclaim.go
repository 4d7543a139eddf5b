// Package resourceclaim makes the claims for devices that pods describe by templates, and frees what nobody uses any more.
//
// The flow: pods bring their own key and those of the claims that they use, claims those of their users; decide* says what
// lacks and what goes. A claim's name is made by the apiserver, so what was created is expected until the cache shows it;
// that is the only state, guarded by itself. A user that the cache does not know is asked for before it is struck off.
package resourceclaim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	resourcelisters "k8s.io/client-go/listers/resource/v1"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

type controller struct {
	runtime.Deps
	pods      corelisters.PodLister
	claims    resourcelisters.ResourceClaimLister
	templates resourcelisters.ResourceClaimTemplateLister
	owned     runtime.Children[resourcev1.ResourceClaim]
	users     func(claim string) []*corev1.Pod // pods that name a claim, by namespace/name
	waiting   func(template string) []*corev1.Pod
	expect    runtime.Expectations
}

// pod is the prefix of keys that are pods'; others are claims'. No name holds a slash.
const pod = "pod/"

func podKey(o metav1.Object) runtime.Key {
	return runtime.Key{Namespace: o.GetNamespace(), Name: pod + o.GetName()}
}

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	pods, api := d.Informers.Core().V1().Pods(), d.Informers.Resource().V1()
	claims, templates := api.ResourceClaims(), api.ResourceClaimTemplates()
	c := &controller{
		Deps: d, pods: pods.Lister(), claims: claims.Lister(), templates: templates.Lister(), owned: runtime.ByController[resourcev1.ResourceClaim](claims.Informer()),
		users: runtime.By(pods.Informer(), "resourceclaims", func(p *corev1.Pod) (out []string) {
			for _, name := range named(p) {
				out = append(out, p.Namespace+"/"+name)
			}
			return out
		}),
		waiting: runtime.By(pods.Informer(), "resourceclaimtemplates", func(p *corev1.Pod) (out []string) {
			for _, pc := range p.Spec.ResourceClaims {
				if pc.ResourceClaimTemplateName != nil {
					out = append(out, p.Namespace+"/"+*pc.ResourceClaimTemplateName)
				}
			}
			return out
		}),
	}
	return &runtime.Controller{
		Name: "resourceclaim-controller", Account: "resource-claim-controller", Queue: "resource_claim", For: "claims for devices come and go with their pods", Workers: 10,
		Watches: []runtime.Watch{
			{What: "pods", Informer: pods.Informer(), Gone: func(o metav1.Object) { c.expect.Created(podKey(o), 1<<30) }, Keys: c.ofPod},
			{What: "resourceclaims", Informer: claims.Informer(), Keys: c.ofClaim, Born: func(o metav1.Object) {
				if ref := metav1.GetControllerOf(o); ref != nil && ref.Kind == "Pod" {
					c.expect.Created(runtime.Key{Namespace: o.GetNamespace(), Name: pod + ref.Name}, 1)
				}
			}},
			{What: "resourceclaimtemplates", Informer: templates.Informer(), Keys: func(_, o metav1.Object) (keys []runtime.Key) {
				for _, p := range c.waiting(o.GetNamespace() + "/" + o.GetName()) {
					keys = append(keys, podKey(p))
				}
				return keys
			}},
		},
		Writes: []string{"resourceclaims", "resourceclaims/status", "pods/status"}, Reconcile: c.reconcile,
	}
}

// named answers the claims that a pod has, by name.
func named(p *corev1.Pod) (out []string) {
	for _, pc := range p.Spec.ResourceClaims {
		if pc.ResourceClaimName != nil {
			out = append(out, *pc.ResourceClaimName)
		}
	}
	for _, st := range p.Status.ResourceClaimStatuses {
		if st.ResourceClaimName != nil {
			out = append(out, *st.ResourceClaimName)
		}
	}
	if x := p.Status.ExtendedResourceClaimStatus; x != nil {
		out = append(out, x.ResourceClaimName)
	}
	return out
}

// ofPod answers a pod that has claims, and once it is done its claims.
func (c *controller) ofPod(_, obj metav1.Object) []runtime.Key {
	p := obj.(*corev1.Pod)
	names := named(p)
	if len(p.Spec.ResourceClaims) == 0 && len(names) == 0 {
		return nil
	}
	keys := []runtime.Key{podKey(p)}
	for _, name := range names {
		keys = append(keys, runtime.Key{Namespace: p.Namespace, Name: name})
	}
	for _, o := range c.owned.Of(p.UID) {
		keys = append(keys, runtime.KeyOf(o))
	}
	return keys
}

// ofClaim answers a claim, and the pods that it is for.
func (c *controller) ofClaim(_, obj metav1.Object) []runtime.Key {
	keys := []runtime.Key{runtime.KeyOf(obj)}
	if ref := metav1.GetControllerOf(obj); ref != nil && ref.Kind == "Pod" {
		keys = append(keys, runtime.Key{Namespace: obj.GetNamespace(), Name: pod + ref.Name})
	}
	for _, p := range c.users(obj.GetNamespace() + "/" + obj.GetName()) {
		keys = append(keys, podKey(p))
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key runtime.Key) (time.Duration, error) {
	if name, ok := strings.CutPrefix(key.Name, pod); ok {
		return 0, c.pod(ctx, key, name)
	}
	claim, err := c.claims.ResourceClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return 0, c.claim(ctx, claim)
}

func (c *controller) pod(ctx context.Context, key runtime.Key, name string) error {
	p, err := c.pods.Pods(key.Namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || !c.expect.Met(key, time.Now()) {
		return err // the claim that the cache is about to show brings this pod again
	}
	s := PodSnapshot{Pod: p, Templates: map[string]*resourcev1.ResourceClaimTemplate{}, Claims: map[string]*resourcev1.ResourceClaim{}, Owned: c.owned.Of(p.UID)}
	for _, pc := range p.Spec.ResourceClaims {
		if pc.ResourceClaimTemplateName == nil {
			continue
		}
		if t, err := c.templates.ResourceClaimTemplates(p.Namespace).Get(*pc.ResourceClaimTemplateName); err == nil {
			s.Templates[t.Name] = t
		}
	}
	for _, name := range named(p) {
		if x, err := c.claims.ResourceClaims(p.Namespace).Get(name); err == nil {
			s.Claims[name] = x
		}
	}
	return c.applyPod(ctx, key, p, decidePod(s))
}

func (c *controller) applyPod(ctx context.Context, key runtime.Key, p *corev1.Pod, plan PodPlan) error {
	faults := plan.Faults
	api := c.Client.ResourceV1().ResourceClaims(p.Namespace)
	if n := len(plan.Create); n > 0 {
		c.expect.Creates(key, n, time.Now())
	}
	for _, x := range plan.Create {
		if _, err := api.Create(ctx, x, metav1.CreateOptions{}); err != nil {
			c.expect.Created(key, 1)
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				faults = append(faults, fmt.Errorf("PodResourceClaim %s: %w", x.Annotations[resourcev1.PodResourceClaimAnnotation], err))
			}
		}
	}
	for _, err := range faults {
		c.Event(p, runtime.Warning, "FailedResourceClaimCreation", err.Error())
	}
	errs := faults
	if plan.Statuses != nil {
		// Of two claims of which one's answer was lost, either may be named, but only as long as none is: with the version that was looked at
		// a name that others know already is not taken back.
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID, "resourceVersion": p.ResourceVersion}, "status": map[string]any{"resourceClaimStatuses": plan.Statuses}})
		if err != nil {
			return err
		}
		if _, err = c.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for _, x := range plan.Reserve {
		if _, err := api.UpdateStatus(ctx, x, metav1.UpdateOptions{}); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 1 {
		return errs[0] // a lost race is to be seen as one
	}
	return errors.Join(errs...)
}

func (c *controller) claim(ctx context.Context, claim *resourcev1.ResourceClaim) error {
	var failed error
	left := func(name string, uid types.UID) bool {
		p, err := c.pods.Pods(claim.Namespace).Get(name)
		if apierrors.IsNotFound(err) {
			p, err = c.Client.CoreV1().Pods(claim.Namespace).Get(ctx, name, metav1.GetOptions{})
		}
		if apierrors.IsNotFound(err) {
			return true
		}
		if err != nil {
			failed = err
			return false
		}
		return p.UID != uid || done(p)
	}
	s := ClaimSnapshot{Claim: claim, Left: func(r resourcev1.ResourceClaimConsumerReference) bool { return left(r.Name, r.UID) }}
	if ref := metav1.GetControllerOf(claim); ref != nil && ref.Kind == "Pod" && ref.APIVersion == "v1" {
		s.Orphan = left(ref.Name, ref.UID)
	}
	p := decideClaim(s)
	if failed != nil {
		return failed
	}
	api := c.Client.ResourceV1().ResourceClaims(claim.Namespace)
	next := claim.DeepCopy()
	var err error
	if p.Status != nil {
		next.Status = *p.Status
		if next, err = api.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
			return ended(err)
		}
	}
	if p.Free {
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		if next, err = api.Update(ctx, next, metav1.UpdateOptions{}); err != nil {
			return ended(err)
		}
	}
	if p.Delete {
		return ended(api.Delete(ctx, next.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &next.UID}}))
	}
	return nil
}

// ended is nil for what is gone.
func ended(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

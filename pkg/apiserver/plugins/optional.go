package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// optional are the plugins that work only where they are asked for.
var optional = []admission.Plugin{
	{Name: "AlwaysAdmit"}, NamespaceAutoProvision, NamespaceExists, LimitPodHardAntiAffinityTopology, AlwaysPullImages,
	ExtendedResourceToleration, DenyServiceExternalIPs,
}

// AlwaysDeny refuses every change.
var AlwaysDeny = admission.Plugin{Name: "AlwaysDeny", Validate: func(context.Context, *admission.Request) error {
	return errors.New("admission control is denying all modifications")
}}

// missing tells whether a request is for a namespace that is not there.
func missing(ctx context.Context, r *admission.Request) (bool, error) {
	if r.Namespace == "" || r.Resource.GroupResource() == namespaces {
		return false, nil
	}
	_, err := r.Env.Get(ctx, namespaces, "", r.Namespace)
	if apierrors.IsNotFound(err) {
		_, err = r.Env.GetFresh(ctx, namespaces, "", r.Namespace)
	}
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

// NamespaceAutoProvision makes the namespace that something is to be made in.
var NamespaceAutoProvision = admission.Plugin{Name: "NamespaceAutoProvision", Mutate: func(ctx context.Context, r *admission.Request) error {
	if r.Verb != admission.Create || r.DryRun {
		return nil
	}
	gone, err := missing(ctx, r)
	if err != nil || !gone {
		return err
	}
	_, err = r.Env.Create(ctx, namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.Namespace}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}}

// NamespaceExists refuses everything in a namespace that is not there.
var NamespaceExists = admission.Plugin{Name: "NamespaceExists", Validate: func(ctx context.Context, r *admission.Request) error {
	gone, err := missing(ctx, r)
	if gone {
		return apierrors.NewNotFound(namespaces, r.Namespace)
	}
	return err
}}

// LimitPodHardAntiAffinityTopology lets pods keep others off their node, not off larger places.
var LimitPodHardAntiAffinityTopology = admission.Plugin{Name: "LimitPodHardAntiAffinityTopology", Validate: func(_ context.Context, r *admission.Request) error {
	p := writtenPod(r)
	if p == nil || p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, t := range p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if t.TopologyKey != corev1.LabelHostname {
			return fmt.Errorf("affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", t.TopologyKey, corev1.LabelHostname)
		}
	}
	return nil
}}

// writtenPod answers the pod that a request makes or changes as a whole, nil if there is none.
func writtenPod(r *admission.Request) *corev1.Pod {
	if r.Sub != "" || r.Verb != admission.Create && r.Verb != admission.Update {
		return nil
	}
	p, _ := r.Object.(*corev1.Pod)
	return p
}

// AlwaysPullImages has every image pulled with the pod's own credentials, so that nobody runs what another pulled.
var AlwaysPullImages = admission.Plugin{Name: "AlwaysPullImages",
	Mutate: func(_ context.Context, r *admission.Request) error {
		eachPull(r, func(p *corev1.PullPolicy, _ *field.Path) { *p = corev1.PullAlways })
		return nil
	},
	Validate: func(_ context.Context, r *admission.Request) error {
		var errs []error
		eachPull(r, func(p *corev1.PullPolicy, at *field.Path) {
			if *p != corev1.PullAlways {
				errs = append(errs, field.NotSupported(at, *p, []string{string(corev1.PullAlways)}))
			}
		})
		return errors.Join(errs...)
	},
}

// eachPull calls f with every pull policy of the pod that a request writes.
func eachPull(r *admission.Request, f func(*corev1.PullPolicy, *field.Path)) {
	p, _ := r.Object.(*corev1.Pod)
	if p == nil || r.Verb != admission.Create && r.Verb != admission.Update || r.Sub != "" && r.Sub != "ephemeralcontainers" {
		return
	}
	spec := field.NewPath("spec")
	for i := range p.Spec.InitContainers {
		f(&p.Spec.InitContainers[i].ImagePullPolicy, spec.Child("initContainers").Index(i).Child("imagePullPolicy"))
	}
	for i := range p.Spec.Containers {
		f(&p.Spec.Containers[i].ImagePullPolicy, spec.Child("containers").Index(i).Child("imagePullPolicy"))
	}
	for i := range p.Spec.EphemeralContainers {
		f(&p.Spec.EphemeralContainers[i].ImagePullPolicy, spec.Child("ephemeralContainers").Index(i).Child("imagePullPolicy"))
	}
	for i := range p.Spec.Volumes {
		if v := p.Spec.Volumes[i].Image; v != nil {
			f(&v.PullPolicy, spec.Child("volumes").Index(i).Child("image", "pullPolicy"))
		}
	}
}

// ExtendedResourceToleration lets pods that ask for a device onto the nodes that are kept for those who do.
var ExtendedResourceToleration = admission.Plugin{Name: "ExtendedResourceToleration", Mutate: func(_ context.Context, r *admission.Request) error {
	p := writtenPod(r)
	if p == nil {
		return nil
	}
	var names []string
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for n := range c.Resources.Requests {
			if s := string(n); strings.Contains(s, "/") && !strings.Contains(s, "kubernetes.io/") && !slices.Contains(names, s) {
				names = append(names, s)
			}
		}
	}
	slices.Sort(names)
	for _, n := range names {
		t := corev1.Toleration{Key: n, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
		if !hasToleration(p, t) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, t)
		}
	}
	return nil
}}

// DenyServiceExternalIPs lets no service take an address that others may use.
var DenyServiceExternalIPs = admission.Plugin{Name: "DenyServiceExternalIPs", Validate: func(_ context.Context, r *admission.Request) error {
	s, _ := r.Object.(*corev1.Service)
	if s == nil || r.Sub != "" {
		return nil
	}
	old, _ := r.Old.(*corev1.Service)
	for _, ip := range s.Spec.ExternalIPs {
		if old == nil || !slices.Contains(old.Spec.ExternalIPs, ip) {
			return errors.New("Use of external IPs is denied by admission control.") //nolint:staticcheck,revive // as clients know it
		}
	}
	return nil
}}

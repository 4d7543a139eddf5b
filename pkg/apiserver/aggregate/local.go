package aggregate

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilversion "k8s.io/apimachinery/pkg/version"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// managed marks the APIServices that servers keep themselves: those of the start, and those that come and go with custom
// resources.
const (
	managed   = "kube-aggregator.kubernetes.io/automanaged"
	onStart   = "onstart"
	whileTrue = "true"
)

// priorities are the ranks of the server's own groups.
var priorities = map[string]int32{
	"": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600, "autoscaling": 17500, "batch": 17400,
	"certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100, "rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800,
	"apiextensions.k8s.io": 16700, "admissionregistration.k8s.io": 16700, "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500, "node.k8s.io": 16300,
	"discovery.k8s.io": 16200, "resource.k8s.io": 16200, "flowcontrol.apiserver.k8s.io": 16100, "storagemigration.k8s.io": 15800,
}

// keepLocal makes the local APIServices those of what this server serves.
func (r *Room) keepLocal(ctx context.Context, custom []schema.GroupVersion) error {
	objs, err := r.c.Env.List(ctx, apiServices, "")
	if err != nil {
		return err
	}
	there := map[string]*apiregistrationv1.APIService{}
	for _, o := range objs {
		there[o.GetName()] = o.(*apiregistrationv1.APIService)
	}
	want := map[string]bool{}
	var errs []error
	keep := func(gv schema.GroupVersion, mark string, group, version int32) {
		name := gv.Version + "." + gv.Group
		want[name] = true
		if s := there[name]; s == nil || s.Spec.Service == nil && !isLocal(s) {
			errs = append(errs, r.local(ctx, name, gv, mark, group, version, s == nil))
		}
	}
	for gv := range r.own {
		if gv.Group == apiregistrationv1.GroupName {
			continue // it is this very layer's
		}
		keep(gv, onStart, priorities[gv.Group], r.versionPriority(gv))
	}
	for _, gv := range custom {
		keep(gv, whileTrue, 1000, 100)
	}
	for name, s := range there {
		if !want[name] && s.Labels[managed] == whileTrue && s.Spec.Service == nil {
			if err := r.c.Env.Delete(ctx, apiServices, "", name, nil); err != nil && !apierrors.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// versionPriority ranks a version among those of its group: 15 for one alone, more for better ones.
func (r *Room) versionPriority(gv schema.GroupVersion) int32 {
	p := int32(15)
	if gv.Group == "" {
		p = 1
	}
	for o := range r.own {
		if o.Group == gv.Group && utilversion.CompareKubeAwareVersionStrings(gv.Version, o.Version) > 0 {
			p += 15
		}
	}
	return p
}

func isLocal(s *apiregistrationv1.APIService) bool {
	for _, c := range s.Status.Conditions {
		if c.Type == apiregistrationv1.Available && c.Status == apiregistrationv1.ConditionTrue {
			return true
		}
	}
	return false
}

// local stores a local APIService, which is always available.
func (r *Room) local(ctx context.Context, name string, gv schema.GroupVersion, mark string, group, version int32, create bool) error {
	if create {
		_, err := r.c.Env.Create(ctx, apiServices, &apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{managed: mark}},
			Spec:       apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: group, VersionPriority: version},
		})
		switch {
		case err == nil:
			return nil // its row has made it available
		case !apierrors.IsAlreadyExists(err):
			return fmt.Errorf("creating APIService %s: %w", name, err)
		}
	}
	_, err := r.c.Env.Mutate(ctx, apiServices, "", name, func(o kind.Object) error {
		if s := o.(*apiregistrationv1.APIService); s.Spec.Service == nil {
			setCondition(s, apiregistrationv1.APIServiceCondition{
				Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, Reason: "Local", Message: "Local APIServices are always available",
			})
		}
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil // gone already
	}
	return err
}

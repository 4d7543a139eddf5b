// Package clusterrole fills aggregated cluster roles with the rules of the roles they select.
//
// A change of any cluster role brings the keys of all that aggregate; decide gathers the rules anew. It keeps no state.
package clusterrole

import (
	"context"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// New answers the controller.
func New(d runtime.Deps) *runtime.Controller {
	roles := d.Informers.Rbac().V1().ClusterRoles()
	return &runtime.Controller{
		Name: "clusterrole-aggregation-controller", Account: "clusterrole-aggregation-controller", Queue: "ClusterRoleAggregator", For: "the rules of cluster roles that gather those of others",
		Watches: []runtime.Watch{{What: "clusterroles", Informer: roles.Informer(), Keys: func(_, _ metav1.Object) []runtime.Key {
			all, err := roles.Lister().List(labels.Everything())
			if err != nil {
				return nil
			}
			var keys []runtime.Key
			for _, r := range all {
				if r.AggregationRule != nil {
					keys = append(keys, runtime.KeyOf(r))
				}
			}
			return keys
		}}},
		Writes: []string{"clusterroles"},
		Reconcile: func(ctx context.Context, key runtime.Key) (time.Duration, error) {
			role, err := roles.Lister().Get(key.Name)
			if apierrors.IsNotFound(err) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			all, err := roles.Lister().List(labels.Everything())
			if err != nil {
				return 0, err
			}
			p, err := decide(role, all)
			if err != nil || !p.Changed {
				return 0, err
			}
			slog.Debug("cluster role", "name", key.Name, "rules", len(p.Rules))
			next := role.DeepCopy()
			next.Rules = p.Rules
			_, err = d.Client.RbacV1().ClusterRoles().Update(ctx, next, metav1.UpdateOptions{})
			return 0, err
		},
	}
}

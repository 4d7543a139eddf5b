package plugins

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// selectorNote names the node selector of a namespace.
const selectorNote = "scheduler.alpha.kubernetes.io/node-selector"

// PodNodeSelector keeps the pods of a namespace on the nodes that its annotation selects, or else the cluster's default, and lets them
// select no others than its configuration allows the namespace.
func PodNodeSelector(c Configuration) (admission.Plugin, error) {
	const name, clusterDefault = "PodNodeSelector", "clusterDefaultNodeSelector"
	var conf struct {
		Selectors map[string]string `json:"podNodeSelectorPluginConfig"`
	}
	if _, err := c.read(name, &conf, nil, ""); err != nil {
		return admission.Plugin{}, err
	}
	allowed := map[string]labels.Set{}
	for of, text := range conf.Selectors {
		set, err := labels.ConvertSelectorToLabelsMap(text)
		if err != nil {
			return admission.Plugin{}, fmt.Errorf("the configuration of %s: %s: %w", name, of, err)
		}
		allowed[of] = set
	}
	return admission.Plugin{
		Name: name,
		Mutate: func(ctx context.Context, r *admission.Request) error {
			p := newPod(r)
			if p == nil {
				return nil
			}
			obj, err := r.Env.Get(ctx, namespaces, "", r.Namespace)
			if apierrors.IsNotFound(err) {
				obj, err = r.Env.GetFresh(ctx, namespaces, "", r.Namespace)
			}
			if err != nil {
				return err
			}
			want := allowed[clusterDefault]
			if text, ok := obj.GetAnnotations()[selectorNote]; ok {
				if want, err = labels.ConvertSelectorToLabelsMap(text); err != nil {
					return err
				}
			}
			if labels.Conflicts(want, labels.Set(p.Spec.NodeSelector)) {
				return errors.New("pod node label selector conflicts with its namespace node label selector")
			}
			if len(want) > 0 {
				p.Spec.NodeSelector = labels.Merge(want, labels.Set(p.Spec.NodeSelector))
			}
			return nil
		},
		Validate: func(_ context.Context, r *admission.Request) error {
			p := newPod(r)
			if p == nil || len(allowed[r.Namespace]) == 0 {
				return nil
			}
			for k, v := range p.Spec.NodeSelector {
				if may, ok := allowed[r.Namespace][k]; !ok || may != v {
					return errors.New("pod node label selector labels conflict with its namespace whitelist")
				}
			}
			return nil
		},
	}, nil
}

package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	podresource "k8s.io/component-helpers/resource"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

var limitRanges = schema.GroupResource{Resource: "limitranges"}

// limitNote is the annotation that tells which numbers were not the author's.
const limitNote = "kubernetes.io/limit-ranger"

// LimitRanger gives containers the requests and limits of their namespace and refuses what is outside its bounds.
var LimitRanger = admission.Plugin{Name: "LimitRanger",
	Mutate: func(ctx context.Context, r *admission.Request) error {
		p := newPod(r)
		if p == nil {
			return nil
		}
		items, err := limitsOf(ctx, r)
		if err != nil {
			return err
		}
		for _, item := range items {
			if item.Type == corev1.LimitTypeContainer {
				fillLimits(p, item)
			}
		}
		return nil
	},
	Validate: func(ctx context.Context, r *admission.Request) error {
		var check func(item corev1.LimitRangeItem) []error
		switch o := r.Object.(type) {
		case *corev1.Pod:
			if !(r.Verb == admission.Create && r.Sub == "" || r.Verb == admission.Update && r.Sub == "resize") {
				return nil
			}
			check = func(item corev1.LimitRangeItem) []error { return podOutside(o, item) }
		case *corev1.PersistentVolumeClaim:
			if r.Sub != "" || r.Verb != admission.Create && r.Verb != admission.Update || o.DeletionTimestamp != nil {
				return nil
			}
			check = func(item corev1.LimitRangeItem) []error {
				if item.Type != corev1.LimitTypePersistentVolumeClaim {
					return nil
				}
				return outside(item, o.Spec.Resources.Requests, nil, false)
			}
		default:
			return nil
		}
		items, err := limitsOf(ctx, r)
		if err != nil {
			return err
		}
		var errs []error
		for _, item := range items {
			errs = append(errs, check(item)...)
		}
		if len(errs) == 0 {
			return nil
		}
		return apierrors.NewForbidden(r.Resource.GroupResource(), r.Name, utilerrors.NewAggregate(errs))
	},
}

// limitsOf answers every item of every limit range of the request's namespace.
func limitsOf(ctx context.Context, r *admission.Request) ([]corev1.LimitRangeItem, error) {
	objs, err := r.Env.List(ctx, limitRanges, r.Namespace)
	if err != nil {
		return nil, err
	}
	var items []corev1.LimitRangeItem
	for _, o := range objs {
		items = append(items, o.(*corev1.LimitRange).Spec.Limits...)
	}
	return items, nil
}

// fillLimits sets what the pod's containers leave open and notes it in an annotation.
func fillLimits(p *corev1.Pod, item corev1.LimitRangeItem) {
	var notes []string
	fill := func(role string, c *corev1.Container) {
		if set := fillMissing(&c.Resources.Requests, item.DefaultRequest); set != "" {
			notes = append(notes, set+" request for "+role+" "+c.Name)
		}
		if set := fillMissing(&c.Resources.Limits, item.Default); set != "" {
			notes = append(notes, set+" limit for "+role+" "+c.Name)
		}
	}
	for i := range p.Spec.Containers {
		fill("container", &p.Spec.Containers[i])
	}
	for i := range p.Spec.InitContainers {
		fill("init container", &p.Spec.InitContainers[i])
	}
	if len(notes) == 0 {
		return
	}
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[limitNote] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
}

// fillMissing adds to list what only defaults has and answers the names added, sorted and joined.
func fillMissing(list *corev1.ResourceList, defaults corev1.ResourceList) string {
	var set []string
	for name, q := range defaults {
		if _, ok := (*list)[name]; ok {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q.DeepCopy()
		set = append(set, string(name))
	}
	slices.Sort(set)
	return strings.Join(set, ", ")
}

func podOutside(p *corev1.Pod, item corev1.LimitRangeItem) []error {
	var errs []error
	switch item.Type {
	case corev1.LimitTypeContainer:
		for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
			errs = append(errs, outside(item, c.Resources.Requests, c.Resources.Limits, true)...)
		}
	case corev1.LimitTypePod:
		o := podresource.PodResourcesOptions{}
		errs = outside(item, podresource.PodRequests(p, o), podresource.PodLimits(p, o), true)
	}
	return errs
}

// outside tells which bounds of an item are not kept, in the order of resource names. Claims have requests only, so
// their maximum is held against the request.
func outside(item corev1.LimitRangeItem, requests, limits corev1.ResourceList, limited bool) []error {
	var errs []error
	for _, name := range sortedNames(item.Min) {
		least := item.Min[name]
		request, asked := requests[name]
		limit, bounded := limits[name]
		says := func(tail string) {
			errs = append(errs, fmt.Errorf("minimum %s usage per %s is %s%s", name, item.Type, least.String(), tail))
		}
		switch {
		case !asked:
			says(".  No request is specified")
		case request.Cmp(least) < 0:
			says(", but request is " + request.String())
		case bounded && limit.Cmp(least) < 0:
			says(", but limit is " + limit.String())
		}
	}
	for _, name := range sortedNames(item.Max) {
		most := item.Max[name]
		request, asked := requests[name]
		limit, bounded := limits[name]
		says := func(tail string) {
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s%s", name, item.Type, most.String(), tail))
		}
		switch {
		case limited && !bounded:
			says(".  No limit is specified")
		case limited && limit.Cmp(most) > 0:
			says(", but limit is " + limit.String())
		case !limited && !asked:
			says(".  No request is specified")
		case asked && request.Cmp(most) > 0:
			says(", but request is " + request.String())
		}
	}
	if !limited {
		return errs
	}
	for _, name := range sortedNames(item.MaxLimitRequestRatio) {
		if err := ratio(name, item, requests, limits); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func ratio(name corev1.ResourceName, item corev1.LimitRangeItem, requests, limits corev1.ResourceList) error {
	most := item.MaxLimitRequestRatio[name]
	request, limit := requests[name], limits[name]
	switch {
	case request.IsZero():
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, item.Type, most.String())
	case limit.IsZero():
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, item.Type, most.String())
	}
	if got := limit.AsApproximateFloat64() / request.AsApproximateFloat64(); got > most.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, item.Type, most.String(), got)
	}
	return nil
}

func sortedNames(list map[corev1.ResourceName]resource.Quantity) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

package ephemeral

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
)

// Plan is what a pod's volumes lack.
type Plan struct {
	Create []*corev1.PersistentVolumeClaim
	Faults []error // volumes whose claim is somebody else's
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	for _, c := range p.Create {
		fmt.Fprintf(&b, "create %s/%s labels %v annotations %v\n", c.Namespace, c.Name, c.Labels, c.Annotations)
	}
	for _, err := range p.Faults {
		fmt.Fprintf(&b, "tell Warning FailedBinding: %v\n", err)
	}
	return b.String()
}

// decide answers the claims that a pod's volumes are to get; have are those of its namespace, by name.
func decide(p *corev1.Pod, have map[string]*corev1.PersistentVolumeClaim) Plan {
	var plan Plan
	if p.DeletionTimestamp != nil {
		return plan
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil {
			continue
		}
		name := ephemeral.VolumeClaimName(p, v)
		if c, ok := have[name]; ok {
			if err := ephemeral.VolumeIsForPod(p, c); err != nil {
				plan.Faults = append(plan.Faults, fmt.Errorf("ephemeral volume %s: %w", v.Name, err))
			}
			continue
		}
		t := v.Ephemeral.VolumeClaimTemplate
		plan.Create = append(plan.Create, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: p.Namespace, Name: name, Labels: t.Labels, Annotations: t.Annotations,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID, Controller: new(true), BlockOwnerDeletion: new(true)}},
			},
			Spec: t.Spec,
		})
	}
	return plan
}

package replicaset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	apiruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/runtime"
)

// NewReplication answers the controller of replication controllers, which are replica sets by an older name.
func NewReplication(d runtime.Deps) *runtime.Controller {
	rcs := d.Informers.Core().V1().ReplicationControllers()
	return build(d, rcs.Informer(), kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		get: func(key runtime.Key) (*appsv1.ReplicaSet, apiruntime.Object, error) {
			rc, err := rcs.Lister().ReplicationControllers(key.Namespace).Get(key.Name)
			if err != nil {
				return nil, nil, err
			}
			return asSet(rc), rc, nil
		},
		in: func(namespace string) ([]*appsv1.ReplicaSet, error) {
			all, err := rcs.Lister().ReplicationControllers(namespace).List(labels.Everything())
			out := make([]*appsv1.ReplicaSet, 0, len(all))
			for _, rc := range all {
				out = append(out, asSet(rc))
			}
			return out, err
		},
		write: func(ctx context.Context, obj apiruntime.Object, status appsv1.ReplicaSetStatus) error {
			next := obj.(*corev1.ReplicationController).DeepCopy()
			next.Status = corev1.ReplicationControllerStatus{
				Replicas: status.Replicas, FullyLabeledReplicas: status.FullyLabeledReplicas, ReadyReplicas: status.ReadyReplicas,
				AvailableReplicas: status.AvailableReplicas, ObservedGeneration: status.ObservedGeneration,
			}
			for _, c := range status.Conditions {
				next.Status.Conditions = append(next.Status.Conditions, corev1.ReplicationControllerCondition{
					Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
				})
			}
			// What a replica set tells of terminating pods has no place here, so there may be nothing new.
			if equality.Semantic.DeepEqual(next.Status, obj.(*corev1.ReplicationController).Status) {
				return nil
			}
			_, err := d.Client.CoreV1().ReplicationControllers(next.Namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
			return err
		},
	}, &runtime.Controller{
		Name: "replicationcontroller-controller", Account: "replication-controller", Queue: "replicationmanager", For: "as many pods as a replication controller asks for",
		Writes: []string{"pods", "replicationcontrollers/status"},
	})
}

// asSet answers a replication controller as a replica set. It shares what it points to.
func asSet(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	s := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec:       appsv1.ReplicaSetSpec{Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds, Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}},
		Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas, ReadyReplicas: rc.Status.ReadyReplicas,
			AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration,
		},
	}
	if rc.Spec.Template != nil {
		s.Spec.Template = *rc.Spec.Template
	}
	for _, c := range rc.Status.Conditions {
		s.Status.Conditions = append(s.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return s
}

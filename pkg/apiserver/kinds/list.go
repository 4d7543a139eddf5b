// Package kinds names every row the server has: this file is the list, the folders below hold one file per kind.
//
// To add a kind, write its file and add it here; see docs/add-a-kind.md.
package kinds

import (
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/admissionregistration"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/apps"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/autoscaling"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/batch"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/certificates"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/coordination"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/core"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/endpoints"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/extensions"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/flowcontrol"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/networking"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/node"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/policy"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/rbac"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/resource"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/reviews"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/scheduling"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/storage"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/storagemigration"
)

// Deps is what rows need of the rest of the server.
type Deps struct {
	Pods                    core.PodStreams
	NodeProxy, ServiceProxy kind.ConnectFunc
	Token                   kind.ActionFunc // serviceaccounts/token
	Reviews                 reviews.Answers
	Ranges                  core.Ranges
	EventSeconds            int64                  // how long events are kept; 0 = an hour
	Health                  []func(*kind.Op) error // of each etcd, nil = healthy
}

// All answers every row, in the order of discovery: groups as upstream ranks them, kinds by resource.
func All(d Deps) []*kind.Def {
	rows := []*kind.Def{
		core.Binding(), core.ComponentStatus(d.Health), core.ConfigMap(), core.Endpoints(), core.Event(d.EventSeconds), core.LimitRange(),
		core.Namespace(), core.Node(d.NodeProxy), core.PersistentVolumeClaim(), core.PersistentVolume(), core.Pod(d.Pods), core.PodTemplate(),
		core.ReplicationController(), core.ResourceQuota(), core.Secret(), core.ServiceAccount(d.Token), core.Service(d.Ranges, d.ServiceProxy),
		core.RangeAllocation(),
		extensions.APIService(),
		apps.ControllerRevision(), apps.DaemonSet(), apps.Deployment(), apps.ReplicaSet(), apps.StatefulSet(),
	}
	rows = append(rows, reviews.All(d.Reviews)...)
	return append(rows,
		autoscaling.HorizontalPodAutoscaler(),
		batch.CronJob(), batch.Job(),
		certificates.CertificateSigningRequest(), certificates.ClusterTrustBundle(), certificates.PodCertificateRequest(),
		networking.IngressClass(), networking.Ingress(), networking.IPAddress(), networking.NetworkPolicy(), networking.ServiceCIDR(),
		policy.PodDisruptionBudget(),
		rbac.ClusterRoleBinding(), rbac.ClusterRole(), rbac.RoleBinding(), rbac.Role(),
		storage.CSIDriver(), storage.CSINode(), storage.CSIStorageCapacity(), storage.StorageClass(), storage.VolumeAttachment(), storage.VolumeAttributesClass(),
		admissionregistration.MutatingAdmissionPolicy(), admissionregistration.MutatingAdmissionPolicyBinding(), admissionregistration.MutatingWebhookConfiguration(),
		admissionregistration.ValidatingAdmissionPolicy(), admissionregistration.ValidatingAdmissionPolicyBinding(), admissionregistration.ValidatingWebhookConfiguration(),
		extensions.CustomResourceDefinition(),
		scheduling.PriorityClass(),
		coordination.Lease(),
		node.RuntimeClass(),
		endpoints.EndpointSlice(),
		resource.DeviceClass(), resource.DeviceTaintRule(), resource.ResourceClaim(), resource.ResourceClaimTemplate(), resource.ResourceSlice(),
		flowcontrol.FlowSchema(), flowcontrol.PriorityLevelConfiguration(),
		storagemigration.StorageVersionMigration(),
	)
}

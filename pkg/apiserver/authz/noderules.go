package authz

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// rule is a policy rule in one line: groups, resources and verbs, each comma separated ("" alone is the core group).
type rule struct{ groups, resources, verbs string }

// nodeRules are what every kubelet may do besides what its pods need; the same that the ClusterRole system:node grants.
var nodeRules = []rule{
	{"authentication.k8s.io", "tokenreviews", "create"},
	{"authorization.k8s.io", "localsubjectaccessreviews,subjectaccessreviews", "create"},
	{"", "services", "get,list,watch"},
	{"", "nodes", "create,get,list,watch,patch,update"},
	{"", "nodes/status", "patch,update"},
	{",events.k8s.io", "events", "create,patch,update"},
	{"", "pods", "get,list,watch,create,delete"},
	{"", "pods/status", "patch,update"},
	{"", "pods/eviction", "create"},
	{"", "endpoints", "get"},
	{"certificates.k8s.io", "certificatesigningrequests", "create,get,list,watch"},
	{"certificates.k8s.io", "podcertificaterequests", "create"},
	{"certificates.k8s.io", "clustertrustbundles", "get,list,watch"},
	{"storage.k8s.io", "csidrivers", "get,list,watch"},
	{"node.k8s.io", "runtimeclasses", "get,list,watch"},
	{"resource.k8s.io", "resourceslices", "get,list,watch,create,update,patch,delete,deletecollection"},
}

func (r rule) allows(a authorizer.Attributes) bool {
	return allows(&rbacv1.PolicyRule{
		APIGroups: strings.Split(r.groups, ","), Resources: strings.Split(r.resources, ","), Verbs: strings.Split(r.verbs, ","),
	}, a)
}

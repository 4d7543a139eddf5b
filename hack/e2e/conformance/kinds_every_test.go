//go:build e2e

package conformance

import "fmt"

// nothing is a template whose pods none runs.
const nothing = `{"metadata":{"labels":{"own":"$NAME"}},"spec":{"containers":[{"name":"c","image":"registry.sextant.local/none-such:1"}]}}`

// conditioned is a status patch of one condition.
const conditioned = `{"status":{"conditions":[{"type":"Patched","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"E2E","message":"set"}]}}`

// everyKind are the operations of the kinds that no other list has, as they stand in the discovery documents.
var everyKind = func() []behaviour {
	scaled := `{"spec":{"replicas":0,%s"selector":{"matchLabels":{"own":"$NAME"}},"template":` + nothing + `}}`
	var rows []behaviour
	for _, k := range []kind{
		{name: "Pod", resource: "v1 pods", namespaced: true, manifest: `{"spec":{"schedulingGates":[{"name":"e2e.example.com/never"}],"containers":[{"name":"c","image":"registry.sextant.local/none-such:1"}]}}`,
			status: `{"status":{"message":"StatusPatched"}}`, statusPath: "status.message", statusValue: "StatusPatched"},
		{name: "Service", resource: "v1 services", namespaced: true, manifest: `{"spec":{"ports":[{"port":80}]}}`, status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"},
		{name: "Endpoints", resource: "v1 endpoints", namespaced: true, manifest: `{"subsets":[{"addresses":[{"ip":"192.0.2.1"}],"ports":[{"port":80}]}]}`},
		{name: "Event", resource: "v1 events", namespaced: true, manifest: `{"involvedObject":{"kind":"Pod","namespace":"$NS","name":"p"},"reason":"Test","type":"Normal","message":"m","count":1}`},
		{name: "Event", resource: "events.k8s.io/v1 events", namespaced: true, manifest: `{"regarding":{"kind":"Pod","namespace":"$NS","name":"p"},"reason":"Test","type":"Normal","note":"m","action":"Do","eventTime":"2026-01-01T00:00:00.000000Z","reportingController":"example.com/c","reportingInstance":"i"}`},
		{name: "ReplicationController", resource: "v1 replicationcontrollers", namespaced: true, manifest: `{"spec":{"replicas":0,"selector":{"own":"$NAME"},"template":` + nothing + `}}`, status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"},
		{name: "ResourceQuota", resource: "v1 resourcequotas", namespaced: true, manifest: `{"spec":{"hard":{"count/none.example.com":"5"}}}`, status: `{"status":{"hard":{"count/none.example.com":"4"}}}`, statusPath: `status.hard`, statusValue: `{"count/none.example.com":"4"}`},
		{name: "Deployment", resource: "apps/v1 deployments", namespaced: true, manifest: fmt.Sprintf(scaled, ""), status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"},
		{name: "ReplicaSet", resource: "apps/v1 replicasets", namespaced: true, manifest: fmt.Sprintf(scaled, ""), status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"},
		{name: "StatefulSet", resource: "apps/v1 statefulsets", namespaced: true, manifest: fmt.Sprintf(scaled, `"serviceName":"s",`), status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"},
		{name: "DaemonSet", resource: "apps/v1 daemonsets", namespaced: true, manifest: `{"spec":{"selector":{"matchLabels":{"own":"$NAME"}},"template":{"metadata":{"labels":{"own":"$NAME"}},"spec":{"nodeSelector":{"none":"such"},"containers":[{"name":"c","image":"i"}]}}}}`,
			status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"},
		{name: "ControllerRevision", resource: "apps/v1 controllerrevisions", namespaced: true, manifest: `{"data":{"a":"b"},"revision":1}`},
		{name: "Job", resource: "batch/v1 jobs", namespaced: true, manifest: `{"spec":{"suspend":true,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`,
			status: `{"metadata":{"annotations":{"status":"patched"}},"status":{}}`, statusPath: "metadata.annotations.status", statusValue: "patched"},
		{name: "CronJob", resource: "batch/v1 cronjobs", namespaced: true, manifest: `{"spec":{"suspend":true,"schedule":"1 1 1 1 *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}`,
			status: `{"status":{"lastScheduleTime":"2026-01-01T00:00:00Z"}}`, statusPath: "status.lastScheduleTime", statusValue: "2026-01-01T00:00:00Z"},
		{name: "HorizontalPodAutoscaler", resource: "autoscaling/v2 horizontalpodautoscalers", namespaced: true, manifest: `{"spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"none"},"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}]}}`,
			status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"},
		{name: "HorizontalPodAutoscaler", resource: "autoscaling/v1 horizontalpodautoscalers", namespaced: true, manifest: `{"spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"none"},"targetCPUUtilizationPercentage":50}}`,
			status: `{"status":{"currentReplicas":2,"desiredReplicas":2}}`, statusPath: "status.desiredReplicas", statusValue: "2"},
		{name: "Role", resource: "rbac.authorization.k8s.io/v1 roles", namespaced: true, manifest: `{"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`},
		{name: "RoleBinding", resource: "rbac.authorization.k8s.io/v1 rolebindings", namespaced: true, manifest: `{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"none"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"none"}]}`},
		{name: "ClusterRole", resource: "rbac.authorization.k8s.io/v1 clusterroles", manifest: `{"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`},
		{name: "ClusterRoleBinding", resource: "rbac.authorization.k8s.io/v1 clusterrolebindings", manifest: `{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"none"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"none"}]}`},
		{name: "PriorityClass", resource: "scheduling.k8s.io/v1 priorityclasses", manifest: `{"value":1}`},
		{name: "DeviceTaintRule", resource: "resource.k8s.io/v1 devicetaintrules", manifest: `{"spec":{"deviceSelector":{"driver":"none.example.com"},"taint":{"key":"e2e.example.com/t","effect":"NoSchedule"}}}`},
		{name: "CustomResourceDefinition", resource: "apiextensions.k8s.io/v1 customresourcedefinitions", manifest: `{"metadata":{"name":"things.$NAME.example.com"},"spec":{"group":"$NAME.example.com","scope":"Namespaced","names":{"plural":"things","singular":"thing","kind":"Thing"},
			"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`},
	} {
		rows = append(rows, behaviour{name: fmt.Sprintf("%s every operation of %s", k.name, k.resource), test: operations(k)})
	}
	return append(rows, behaviour{name: "APIService every operation of apiregistration.k8s.io/v1 apiservices", serial: true, test: operations(kind{name: "APIService", resource: "apiregistration.k8s.io/v1 apiservices",
		manifest: `{"metadata":{"name":"v1.$NAME.example.com"},"spec":{"group":"$NAME.example.com","version":"v1","groupPriorityMinimum":100,"versionPriority":10,"insecureSkipTLSVerify":true,"service":{"namespace":"default","name":"none"}}}`, status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"})})
}()

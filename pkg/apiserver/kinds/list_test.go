package kinds

import (
	"slices"
	"testing"
)

// selected are the fields by which clients of every release select, besides names and namespaces.
var selected = map[string][]string{
	"certificatesigningrequests": {"spec.signerName"},
	"jobs":                       {"status.successful"},
	"namespaces":                 {"name", "status.phase"},
	"nodes":                      {"spec.unschedulable"},
	"pods": {"spec.host", "spec.hostNetwork", "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.nominatedNodeName",
		"status.phase", "status.podIP"},
	"replicasets":            {"status.replicas"},
	"replicationcontrollers": {"status.replicas"},
	"resourceslices":         {"spec.driver", "spec.nodeName", "spec.pool.name"},
	"secrets":                {"type"},
	"services":               {"spec.clusterIP", "spec.type"},
}

// What stock clients select by is there, and no row reads a field that it does not name.
func TestSelectableFields(t *testing.T) {
	for _, d := range All(Deps{}) {
		if want, ok := selected[d.Resource]; ok {
			if got := slices.Sorted(slices.Values(d.FieldNames)); !slices.Equal(got, want) {
				t.Errorf("%s are selected by %v, not %v", d.Resource, got, want)
			}
		}
		if d.Fields == nil {
			if len(d.FieldNames) > 0 {
				t.Errorf("%s name fields and read none", d.Resource)
			}
			continue
		}
		for name := range d.Fields(d.Versions[0].New()) {
			if !slices.Contains(d.FieldNames, name) {
				t.Errorf("%s read %s, which nobody can ask for", d.Resource, name)
			}
		}
	}
}

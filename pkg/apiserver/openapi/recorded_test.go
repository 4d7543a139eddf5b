package openapi

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds"
)

// line is one of the recorded file: a definition, a path or the list of v3's documents.
type line struct {
	Definition string
	Schema     map[string]any
	Path       string
	Operations map[string]operationLine
	V3         []string `json:"openapi/v3"`
}

type operationLine struct {
	ID                                string
	Action                            string
	GVK                               map[string]string
	Consumes, Produces, Params, Codes []string
}

func recorded(t *testing.T) []line {
	f, err := os.Open("testdata/openapi-1.36.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []line
	in := bufio.NewScanner(z)
	in.Buffer(nil, 1<<22)
	for in.Scan() {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	if in.Err() != nil {
		t.Fatal(in.Err())
	}
	return out
}

type swagger struct {
	Definitions map[string]map[string]any
	Parameters  map[string]struct{ Name, In string }
	Paths       map[string]map[string]json.RawMessage
}

func ours(t *testing.T) swagger {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	var doc swagger
	if err := json.Unmarshal(get(t, h, rootV2, jsonType).Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// changed are what 1.37's published types say otherwise than 1.36: fields that went, and what is required.
var changed = map[string]bool{
	"apps.v1.ControllerRevision.required": true, "apps.v1.DaemonSet.required": true, "apps.v1.DaemonSetCondition.required": true,
	"apps.v1.Deployment.required": true, "apps.v1.DeploymentCondition.required": true, "apps.v1.ReplicaSet.required": true,
	"apps.v1.ReplicaSetCondition.required": true, "apps.v1.StatefulSet.required": true, "apps.v1.StatefulSetCondition.required": true,
	"apps.v1.StatefulSetUpdateStrategy.type": true, "core.v1.NodeAllocatableResourceClaimStatus.required": true,
	"core.v1.NodeAllocatableResourceClaimStatus.resources": true, "core.v1.PodStatus.nodeAllocatableResourceClaimStatuses": true,
	"flowcontrol.v1.FlowSchema.required": true, "flowcontrol.v1.FlowSchemaCondition.required": true,
	"flowcontrol.v1.LimitedPriorityLevelConfiguration.required": true, "flowcontrol.v1.PriorityLevelConfiguration.required": true,
	"flowcontrol.v1.PriorityLevelConfigurationCondition.required": true, "resource.v1.Device.nodeAllocatableResourceMappings": true,
	"resource.v1.DeviceClass.required": true, "resource.v1.ResourceClaim.required": true, "resource.v1.ResourceClaimTemplate.required": true,
	"resource.v1.ResourceClaimTemplateSpec.required":                     true,
	"meta.v1.DeleteOptions.x-kubernetes-group-version-kind":              true,
	"meta.v1.WatchEvent.x-kubernetes-group-version-kind":                 true,
	"resource.v1.NodeAllocatableResourceMapping (whole definition gone)": true,
}

// TestDefinitionsAsRecorded holds every definition that 1.36 publishes to its fields' types, what is required, defaults,
// list types and patch strategies. 1.37 may have fields besides.
func TestDefinitionsAsRecorded(t *testing.T) {
	doc := ours(t)
	compared := 0
	for _, l := range recorded(t) {
		if l.Definition == "" {
			continue
		}
		short := strings.TrimPrefix(strings.TrimPrefix(l.Definition, "io.k8s.api."), "io.k8s.apimachinery.pkg.apis.")
		d, ok := doc.Definitions[l.Definition]
		if !ok {
			if !changed[short+" (whole definition gone)"] {
				t.Errorf("%s is missing", l.Definition)
			}
			continue
		}
		compared++
		differ := func(what string, ours, theirs any) {
			if !changed[short+"."+what] && !reflect.DeepEqual(bare(ours), theirs) {
				t.Errorf("%s %s: %v, recorded is %v", l.Definition, what, bare(ours), theirs)
			}
		}
		mine, _ := d["properties"].(map[string]any)
		theirs, _ := l.Schema["properties"].(map[string]any)
		for p := range theirs {
			differ(p, mine[p], theirs[p])
		}
		keywords := maps.Clone(d)
		maps.Copy(keywords, l.Schema)
		for k := range keywords {
			if k != "properties" && k != "description" {
				differ(k, d[k], l.Schema[k])
			}
		}
	}
	if compared < 580 {
		t.Errorf("only %d definitions were compared", compared)
	}
}

// bare is a schema without its prose.
func bare(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range x {
			if k != "description" {
				out[k] = bare(e)
			}
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = bare(x[i])
		}
		return out
	}
	return v
}

// TestPathsAsRecorded holds every recorded path to its operations: ids, actions, kinds, media types, parameters, codes.
func TestPathsAsRecorded(t *testing.T) {
	doc := ours(t)
	for _, l := range recorded(t) {
		if l.Path == "" {
			continue
		}
		it := doc.Paths[l.Path]
		if it == nil {
			t.Errorf("%s is missing", l.Path)
			continue
		}
		for method := range it {
			if _, ok := l.Operations[method]; !ok && method != "parameters" {
				t.Errorf("%s has %s", l.Path, method)
			}
		}
		for method, want := range l.Operations {
			slices.Sort(want.Produces)
			for i, p := range want.Params {
				want.Params[i], _, _ = strings.Cut(p, "-")
			}
			if got := doc.operation(t, it[method]); !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s:\n got %v\nwant %v", method, l.Path, got, want)
			}
		}
	}
}

// operation puts an operation in the recording's form.
func (s *swagger) operation(t *testing.T, raw json.RawMessage) operationLine {
	if raw == nil {
		return operationLine{}
	}
	var op struct {
		OperationID        string
		Action             string            `json:"x-kubernetes-action"`
		GVK                map[string]string `json:"x-kubernetes-group-version-kind"`
		Consumes, Produces []string
		Parameters         []struct {
			Name string
			Ref  string `json:"$ref"`
		}
		Responses map[string]any
	}
	if err := json.Unmarshal(raw, &op); err != nil {
		t.Fatal(err)
	}
	out := operationLine{ID: op.OperationID, Action: op.Action, GVK: op.GVK, Consumes: op.Consumes, Produces: op.Produces, Params: []string{}}
	for _, p := range op.Parameters {
		if p.Ref != "" {
			p.Name = s.Parameters[strings.TrimPrefix(p.Ref, "#/parameters/")].Name
		}
		out.Params = append(out.Params, p.Name)
	}
	slices.Sort(out.Params)
	slices.Sort(out.Produces)
	out.Codes = sortedKeys(op.Responses)
	return out
}

// TestV3ListAsRecorded holds the index to the recorded one.
func TestV3ListAsRecorded(t *testing.T) {
	h := New(kinds.All(kinds.Deps{}), "v1.37.2")
	for _, l := range recorded(t) {
		for _, key := range l.V3 {
			if !h.Serves(rootV3 + "/" + key) {
				t.Errorf("%s is not served", key)
			}
		}
	}
}

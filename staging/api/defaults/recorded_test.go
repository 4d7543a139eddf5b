package defaults_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// fills is how each kind under test is filled in.
var fills = map[string]func(runtime.Object){
	"v1/Pod": of(defaults.Pod), "v1/Service": of(defaults.Service), "v1/Endpoints": of(defaults.Endpoints),
	"v1/PodTemplate": of(defaults.PodTemplate), "v1/ReplicationController": of(defaults.ReplicationController),
	"v1/LimitRange": of(defaults.LimitRange), "v1/PersistentVolume": of(defaults.PersistentVolume),
	"v1/PersistentVolumeClaim": of(defaults.PersistentVolumeClaim),
	"apps/v1/Deployment":       of(defaults.Deployment), "apps/v1/ReplicaSet": of(defaults.ReplicaSet),
	"apps/v1/DaemonSet": of(defaults.DaemonSet), "apps/v1/StatefulSet": of(defaults.StatefulSet),
	"batch/v1/Job": of(defaults.Job), "batch/v1/CronJob": of(defaults.CronJob),
	"autoscaling/v2/HorizontalPodAutoscaler":                           of(defaults.HorizontalPodAutoscaler),
	"networking.k8s.io/v1/NetworkPolicy":                               of(defaults.NetworkPolicy),
	"networking.k8s.io/v1/IngressClass":                                of(defaults.IngressClass),
	"discovery.k8s.io/v1/EndpointSlice":                                of(defaults.EndpointSlice),
	"rbac.authorization.k8s.io/v1/RoleBinding":                         of(defaults.RoleBinding),
	"rbac.authorization.k8s.io/v1/ClusterRoleBinding":                  of(defaults.ClusterRoleBinding),
	"storage.k8s.io/v1/StorageClass":                                   of(defaults.StorageClass),
	"storage.k8s.io/v1/CSIDriver":                                      of(defaults.CSIDriver),
	"scheduling.k8s.io/v1/PriorityClass":                               of(defaults.PriorityClass),
	"admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration":   of(defaults.ValidatingWebhookConfiguration),
	"admissionregistration.k8s.io/v1/MutatingWebhookConfiguration":     of(defaults.MutatingWebhookConfiguration),
	"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy":        of(defaults.ValidatingAdmissionPolicy),
	"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding": of(defaults.ValidatingAdmissionPolicyBinding),
}

func of[T any, P interface {
	*T
	runtime.Object
}](f func(P)) func(runtime.Object) {
	return func(o runtime.Object) { f(o.(P)) }
}

// later are the leaves that something after defaulting writes, by kind: admission, allocation, a strategy's preparation.
var later = map[string]*regexp.Regexp{
	"v1/Pod":                   regexp.MustCompile(`^/spec/(priority|preemptionPolicy|serviceAccount|serviceAccountName|tolerations/.*|volumes/.*|(initC|c)ontainers/\d+/volumeMounts/.*)$`),
	"v1/PersistentVolumeClaim": regexp.MustCompile(`^/spec/dataSource(Ref)?(/|$)`),
	"batch/v1/Job":             regexp.MustCompile(`^/spec/(selector|manualSelector|template/metadata)(/|$)`),
}

// shared leaves are never a default's.
var shared = regexp.MustCompile(`^/(metadata|status)(/|$)|^/spec/(clusterIP|clusterIPs|ipFamilies|ipFamilyPolicy|ports/\d+/nodePort|healthCheckNodePort)(/|$)`)

type record struct {
	Base    int
	Path    string
	Body    json.RawMessage
	Remove  *string
	Replace *string
	With    any
	Answer  json.RawMessage
}

// TestRecorded holds our defaults equal to what upstream answered to objects it accepted, each of them with one field
// gone or changed. Applying them twice must change nothing more.
func TestRecorded(t *testing.T) {
	f, err := os.Open("testdata/accepted-1.36.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<22)
	var body json.RawMessage
	var base map[string]string
	held, met := 0, map[string]bool{}
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		if r.Path != "" {
			body = r.Body
			base = leaves(t, r.Answer)
			want = base
		} else {
			var diff struct {
				Set  map[string]any
				Gone []string
			}
			if err := json.Unmarshal(r.Answer, &diff); err != nil {
				t.Fatal(err)
			}
			maps.Copy(want, base)
			for p, v := range diff.Set {
				want[p] = text(v)
			}
			for _, p := range diff.Gone {
				delete(want, p)
			}
		}
		var sent any
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatal(err)
		}
		what := "as it is"
		switch {
		case r.Remove != nil:
			what = "without " + *r.Remove
			sent = change(sent, strings.Split(*r.Remove, "/")[1:], nil, true)
		case r.Replace != nil:
			what = fmt.Sprintf("%s = %s", *r.Replace, text(r.With))
			sent = change(sent, strings.Split(*r.Replace, "/")[1:], r.With, false)
		}
		top := sent.(map[string]any)
		gv, _ := top["apiVersion"].(string)
		kind, _ := top["kind"].(string)
		id := gv + "/" + kind
		fill := fills[id]
		if fill == nil {
			continue
		}
		raw, _ := json.Marshal(sent)
		obj, err := scheme.Scheme.New(schema.FromAPIVersionAndKind(gv, kind))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, obj); err != nil {
			t.Fatalf("%s %s: %v", id, what, err)
		}
		fill(obj)
		once, _ := json.Marshal(obj)
		fill(obj)
		if twice, _ := json.Marshal(obj); !bytes.Equal(once, twice) {
			t.Errorf("%s %s: a second filling in changed it:\n%s\n%s", id, what, once, twice)
		}
		for _, d := range differences(leaves(t, once), want, later[id]) {
			t.Errorf("%s %s: %s", id, what, d)
		}
		met[id] = true
		held++
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for id := range fills {
		if !met[id] {
			t.Errorf("no recorded answer for %s", id)
		}
	}
	t.Logf("%d recorded answers", held)
}

func differences(got, want map[string]string, later *regexp.Regexp) []string {
	var out []string
	both := maps.Clone(got)
	maps.Copy(both, want)
	for _, p := range slices.Sorted(maps.Keys(both)) {
		if shared.MatchString(p) || later != nil && later.MatchString(p) || got[p] == want[p] {
			continue
		}
		// An empty list is nothing said; which of the two is written is the codec's affair.
		if got[p] == "[]" && want[p] == "null" {
			continue
		}
		out = append(out, fmt.Sprintf("%s is %q, upstream's %q", p, got[p], want[p]))
	}
	return out
}

// change answers o with what stands at the path taken out or replaced.
func change(o any, path []string, with any, remove bool) any {
	key := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	last := len(path) == 1
	switch o := o.(type) {
	case map[string]any:
		switch {
		case last && remove:
			delete(o, key)
		case last:
			o[key] = with
		default:
			o[key] = change(o[key], path[1:], with, remove)
		}
		return o
	case []any:
		i, err := strconv.Atoi(key)
		switch {
		case err != nil:
			panic("a list has no " + key)
		case last && remove:
			return slices.Delete(o, i, i+1)
		case last:
			o[i] = with
		default:
			o[i] = change(o[i], path[1:], with, remove)
		}
		return o
	}
	panic("nothing stands at " + key)
}

// leaves maps each JSON pointer that ends in a value to that value; empty containers are values too.
func leaves(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	var walk func(p string, v any)
	walk = func(p string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				walk(p+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(k), e)
			}
			if len(v) > 0 {
				return
			}
		case []any:
			for i, e := range v {
				walk(p+"/"+strconv.Itoa(i), e)
			}
			if len(v) > 0 {
				return
			}
		}
		out[p] = text(v)
	}
	walk("", v)
	return out
}

func text(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

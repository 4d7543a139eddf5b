package controllermanager

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/sextant-k8s/sextant/pkg/controllermanager/golden"
)

// statesFile holds what each drive leaves behind in its namespace, as the controllers bring it to rest when nothing happens to
// them. However they crash or lag, it is the same.
const statesFile = "testdata/states.txtar"

// kept are the resources that make a state. Events are not: nobody promises them.
var kept = []schema.GroupVersionResource{
	{Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "endpoints"}, {Version: "v1", Resource: "persistentvolumeclaims"}, {Version: "v1", Resource: "pods"},
	{Version: "v1", Resource: "replicationcontrollers"}, {Version: "v1", Resource: "resourcequotas"}, {Version: "v1", Resource: "secrets"}, {Version: "v1", Resource: "serviceaccounts"}, {Version: "v1", Resource: "services"},
	{Group: "apps", Version: "v1", Resource: "controllerrevisions"}, {Group: "apps", Version: "v1", Resource: "daemonsets"}, {Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "apps", Version: "v1", Resource: "replicasets"}, {Group: "apps", Version: "v1", Resource: "statefulsets"}, {Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"},
	{Group: "batch", Version: "v1", Resource: "cronjobs"}, {Group: "batch", Version: "v1", Resource: "jobs"}, {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
	{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}, {Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaims"},
}

// scrubbed are the fields that say when, in which words, or by which chance, and not what.
var scrubbed = map[string]bool{
	"uid": true, "resourceVersion": true, "creationTimestamp": true, "managedFields": true, "generation": true, "observedGeneration": true, "message": true, "template": true, "jobTemplate": true,
	"clusterIP": true, "clusterIPs": true, "nodePort": true, "podIP": true, "podIPs": true, "lastTransitionTime": true, "lastProbeTime": true, "lastUpdateTime": true, "apiVersion": true, "kind": true, "name": true, "namespace": true,
	"generateName": true,
	// The last look of an autoscaler or a cron job that died may not have been written down: the next one has no need of it.
	"lastScaleTime": true, "desiredReplicas": true, "lastScheduleTime": true, "lastSuccessfulTime": true,
}

var (
	uidPattern  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	timePattern = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
)

// state is what stands in the namespace, one line for each object, without what differs from run to run.
func (s *space) state() (string, error) {
	client, err := dynamic.NewForConfig(s.config)
	if err != nil {
		return "", err
	}
	var all []unstructured.Unstructured
	for _, gvr := range kept {
		list, err := client.Resource(gvr).Namespace(s.ns).List(s.t.Context(), metav1.ListOptions{})
		if err != nil {
			return "", fmt.Errorf("listing %s: %w", gvr.Resource, err)
		}
		all = append(all, list.Items...)
	}
	names := []string{s.ns, "NS"}
	for _, o := range all {
		if o.GetGenerateName() != "" {
			names = append(names, o.GetName(), o.GetGenerateName()+"*")
		}
	}
	names = append(names, s.t.Name(), "TEST")
	plain := strings.NewReplacer(names...)
	text := func(v string) string {
		return timePattern.ReplaceAllString(uidPattern.ReplaceAllString(plain.Replace(v), "UID"), "TIME")
	}
	var lines []string
	for _, o := range all {
		notes := slices.DeleteFunc(slices.Sorted(maps.Keys(o.GetAnnotations())), func(key string) bool {
			return key == touchNote || strings.HasSuffix(key, "/storage-provisioner") // one is asked while no volume is seen
		})
		meta := map[string]any{"labels": o.GetLabels(), "annotations": notes, "finalizers": o.GetFinalizers(), "leaving": o.GetDeletionTimestamp() != nil}
		for _, ref := range o.GetOwnerReferences() {
			meta["owner "+ref.Kind+" "+ref.Name] = deref(ref.Controller)
		}
		whole := map[string]any{"meta": meta}
		for key, v := range o.Object {
			switch key {
			case "data", "stringData":
				if m, ok := v.(map[string]any); ok { // what it is named is enough: much of it is keys and certificates
					v = slices.Sorted(maps.Keys(m))
				}
			case "metadata":
				continue
			case "spec":
				if o.GetKind() == "Pod" { // it is its template's
					continue
				}
			}
			whole[key] = v
		}
		line, err := json.Marshal(scrub(whole))
		if err != nil {
			return "", err
		}
		lines = append(lines, text(fmt.Sprintf("%s %s %s", o.GetKind(), o.GetName(), line)))
	}
	slices.Sort(lines)
	out := strings.Join(append(lines, ""), "\n")
	if s.observer != nil && uncounted[path.Base(s.t.Name())] == "" {
		out += text(s.observer.births(s.ns))
	}
	return out, nil
}

// uncounted are the drives in which chance says how many are born, with the reason.
var uncounted = map[string]string{
	"cron":       "a job is born at each second that it takes",
	"namespace":  "it may go before anything is made in it",
	"autoscaler": "it may scale before all pods are made",
}

func deref(b *bool) bool { return b != nil && *b }

// scrub leaves out what is scrubbed and what is empty, and puts lists in order.
func scrub(v any) any {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var plain any
	if err := json.Unmarshal(raw, &plain); err != nil {
		return err.Error()
	}
	return scrubPlain(plain)
}

func scrubPlain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, x := range v {
			if x = scrubPlain(x); !scrubbed[key] && x != nil {
				out[key] = x
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		type item struct {
			value any
			text  string
		}
		var items []item
		for _, x := range v {
			x = scrubPlain(x)
			text, _ := json.Marshal(x) // it was JSON a moment ago
			items = append(items, item{x, string(text)})
		}
		slices.SortFunc(items, func(a, b item) int { return cmp.Compare(a.text, b.text) })
		var out []any
		for _, x := range items {
			out = append(out, x.value)
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case string:
		if v == "" {
			return nil
		}
	}
	return v
}

// states is the archive, read once.
var states = sync.OnceValues(func() (map[string]string, error) {
	a, err := txtar.ParseFile(statesFile)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, f := range a.Files {
		out[f.Name] = string(f.Data)
	}
	return out, nil
})

// rest waits until a drive's namespace is as it is to be, and stays so; with -update it answers what it came to rest as.
func (s *space) rest(drive string) string {
	s.t.Helper()
	file := strings.ReplaceAll(drive, " ", "-")
	want := ""
	if !golden.Updating() {
		all, err := states()
		s.ok(err)
		var ok bool
		if want, ok = all[file]; !ok {
			s.t.Fatalf("%s says nothing of %s (-update writes it)", statesFile, file)
		}
		if s.observer == nil { // who dies, or never hears an answer, may make one too many and takes it back
			var lines []string
			for line := range strings.Lines(want) {
				if !strings.HasPrefix(line, born) {
					lines = append(lines, line)
				}
			}
			want = strings.Join(lines, "")
		}
	}
	last, since := "", time.Now()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		is, err := s.state()
		s.ok(err)
		if is != last {
			last, since = is, time.Now()
		}
		switch stays := time.Since(since); {
		case golden.Updating() && stays > 4*time.Second:
			return last
		case !golden.Updating() && is == want && stays > 400*time.Millisecond:
			return last
		}
	}
	s.t.Fatalf("it came to rest as something else (-update writes it anew)\n%s", differences(last, want))
	return last
}

// differences are the lines that only one of both has.
func differences(got, want string) string {
	var b strings.Builder
	has := func(text, line string) bool { return slices.Contains(strings.Split(text, "\n"), line) }
	for line := range strings.Lines(got) {
		if !has(want, strings.TrimSuffix(line, "\n")) {
			b.WriteString("+ " + line)
		}
	}
	for line := range strings.Lines(want) {
		if !has(got, strings.TrimSuffix(line, "\n")) {
			b.WriteString("- " + line)
		}
	}
	return b.String()
}

// writeStates writes the archive anew.
func writeStates(t *testing.T, all map[string]string) {
	a := &txtar.Archive{Comment: []byte("What each drive of the controllers comes to rest as; go test -run TestControllers -update writes it.\n")}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(all[name])})
	}
	if err := os.WriteFile(statesFile, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

package validate_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

type workloadRecord struct {
	Kind, Verb      string
	Code, Base      int
	First           bool
	Body            any
	Remove, Replace *string
	With            any
	Causes          [][3]string
}

// kinds answer the errors of an object that is new or takes the place of another.
var kinds = map[string]func(t *testing.T, verb string, now, was []byte) field.ErrorList{
	"pods": held(func(p *corev1.Pod) { defaults.Pod(p) }, validate.Pod, validate.PodUpdate, func(p *corev1.Pod, _ bool) {
		if p.Spec.ServiceAccountName == "" {
			p.Spec.ServiceAccountName = "default" // as admission does to a new pod
		}
	}),
	"podtemplates":           held(defaults.PodTemplate, validate.PodTemplate, validate.PodTemplateUpdate, nil),
	"replicationcontrollers": held(defaults.ReplicationController, validate.ReplicationController, validate.ReplicationControllerUpdate, nil),
	"deployments":            held(func(d *appsv1.Deployment) { defaults.Deployment(d) }, validate.Deployment, validate.DeploymentUpdate, nil),
	"replicasets":            held(defaults.ReplicaSet, validate.ReplicaSet, validate.ReplicaSetUpdate, nil),
	"statefulsets":           held(defaults.StatefulSet, validate.StatefulSet, validate.StatefulSetUpdate, nil),
	"daemonsets":             held(defaults.DaemonSet, validate.DaemonSet, validate.DaemonSetUpdate, nil),
	"jobs":                   held(defaults.Job, newJob, nil, nil),
	"cronjobs":               held(defaults.CronJob, validate.CronJob, validate.CronJobUpdate, nil),
}

// newJob is what a job's row asks of a new job whose selector it has made.
func newJob(j *batchv1.Job) field.ErrorList {
	errs := validation.ValidateObjectMeta(&j.ObjectMeta, true, validation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validate.JobSpec(&j.Spec, field.NewPath("spec"))...)
}

func held[T any, P interface {
	*T
	metav1.Object
}](fill func(P), create func(P) field.ErrorList, update func(P, P) field.ErrorList, admit func(P, bool)) func(*testing.T, string, []byte, []byte) field.ErrorList {
	return func(t *testing.T, verb string, now, was []byte) field.ErrorList {
		read := func(raw []byte, fresh bool) P {
			o := P(new(T))
			if err := json.Unmarshal(raw, o); err != nil {
				t.Fatal(err)
			}
			o.SetNamespace("corpus")
			fill(o)
			if admit != nil && fresh {
				admit(o, fresh)
			}
			return o
		}
		obj := read(now, verb == "POST")
		if verb == "POST" {
			return create(obj)
		}
		old := read(was, true)
		obj.SetName(old.GetName())
		old.SetResourceVersion("1")
		obj.SetResourceVersion("1")
		return update(obj, old)
	}
}

// TestRecordedWorkloads counts the answers to pods and what makes pods that are upstream's to the letter.
func TestRecordedWorkloads(t *testing.T) {
	f, err := os.Open("testdata/workloads-1.36.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[int][]byte{}
	good, all := map[string]int{}, map[string]int{}
	kind := ""
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var r workloadRecord
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.First {
			kind = r.Kind
		}
		if kinds[kind] == nil {
			continue
		}
		if r.Body != nil {
			bodies[r.Base], _ = json.Marshal(r.Body)
		}
		var sent any
		if err := json.Unmarshal(bodies[r.Base], &sent); err != nil {
			t.Fatal(err)
		}
		what := r.Verb + " " + kind
		switch {
		case r.Remove != nil:
			what += " without " + *r.Remove
			sent = alter(sent, strings.Split(*r.Remove, "/")[1:], nil, true)
		case r.Replace != nil:
			with, _ := json.Marshal(r.With)
			what += " with " + *r.Replace + " " + string(with[:min(60, len(with))])
			sent = alter(sent, strings.Split(*r.Replace, "/")[1:], r.With, false)
		}
		if kind == "jobs" && r.Verb == "PUT" {
			continue // held by the job's row, which makes the selector
		}
		now, _ := json.Marshal(sent)
		var got [][3]string
		for _, e := range kinds[kind](t, r.Verb, now, bodies[r.Base]) {
			body := e.ErrorBody()
			if head, _, found := strings.Cut(body, "previously negative)\n"); found {
				body = head + "previously negative)\n" // the difference holds random names
			}
			got = append(got, [3]string{e.Field, strings.TrimPrefix(string(e.Type), "FieldValue"), body})
		}
		of := r.Verb + " " + kind
		all[of]++
		if reflect.DeepEqual(got, r.Causes) {
			good[of]++
		} else if os.Getenv("SHOW") != "" && strings.HasPrefix(of, os.Getenv("SHOW")) {
			t.Logf("%s:\n got %.900q\nwant %.900q", what, got, r.Causes)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for of := range least {
		if all[of] == 0 {
			t.Errorf("%s: nothing is recorded", of)
		}
	}
	for of, n := range all {
		t.Logf("%s: %d of %d", of, good[of], n)
		if good[of] < least[of] {
			t.Errorf("%s: %d answers are as recorded, %d were", of, good[of], least[of])
		}
	}
}

// least is how many answers are as recorded. It only ever rises.
var least = map[string]int{
	"POST pods": 533, "PUT pods": 442, "POST podtemplates": 22, "PUT podtemplates": 14,
	"POST replicationcontrollers": 26, "PUT replicationcontrollers": 19, "POST deployments": 70, "PUT deployments": 55,
	"POST replicasets": 37, "PUT replicasets": 28, "POST daemonsets": 51, "PUT daemonsets": 39,
	"POST jobs": 93, "POST cronjobs": 37, "PUT cronjobs": 27, "POST statefulsets": 90, "PUT statefulsets": 75,
}

// alter answers o with what stands at the path taken out or replaced.
func alter(o any, path []string, with any, remove bool) any {
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
			o[key] = alter(o[key], path[1:], with, remove)
		}
		return o
	case []any:
		i, err := strconv.Atoi(key)
		if err != nil {
			return o
		}
		switch {
		case last && remove:
			return slices.Delete(o, i, i+1)
		case last:
			o[i] = with
		default:
			o[i] = alter(o[i], path[1:], with, remove)
		}
		return o
	}
	return o
}

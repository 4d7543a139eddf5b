package scheduler

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// After pods were bound, refused and nominated, every metric that upstream would show is there, under its name and labels.
func TestMetrics(t *testing.T) {
	s, client, _ := shell(t)
	s.nodeSeen("a", aNode("a", "2"))
	low := aPod("low", "1", 0)
	low.Spec.NodeName = "a"
	see(t, s, low)
	for _, p := range []*v1.Pod{aPod("fits", "1", 5), aPod("evicts", "1", 9), aPod("large", "64", 0)} {
		if _, err := client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		see(t, s, p)
	}
	gated := aPod("gated", "1", 0)
	gated.Spec.SchedulingGates = []v1.PodSchedulingGate{{Name: "x.io/g"}}
	see(t, s, gated)
	for range 3 {
		s.decided = measureEvery - 1 // so that this one is measured
		if !s.one(context.Background()) {
			t.Fatal("no pod came out of the queue")
		}
		s.group.Wait()
	}
	s.nodeSeen("b", aNode("b", "1"))
	w := httptest.NewRecorder()
	s.routes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := w.Body.String()
	for _, want := range []string{
		`scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1`,
		`scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"} 2`,
		`scheduler_scheduling_attempt_duration_seconds_count{profile="default-scheduler",result="scheduled"} 1`,
		`scheduler_scheduling_algorithm_duration_seconds_count 3`,
		`scheduler_pod_scheduling_sli_duration_seconds_count{attempts="1"} 1`,
		`scheduler_pod_scheduling_attempts_count 1`,
		`scheduler_pending_pods{queue="gated"} 1`,
		`scheduler_pending_pods{queue="unschedulable"}`,
		`scheduler_pending_pods{queue="active"}`,
		`scheduler_pending_pods{queue="backoff"}`,
		`scheduler_queue_incoming_pods_total{event="PodAdd",queue="active"} 3`,
		`scheduler_queue_incoming_pods_total{event="ScheduleAttemptFailure",queue="unschedulable"}`,
		`scheduler_preemption_attempts_total 1`,
		`scheduler_preemption_victims_sum 1`,
		`scheduler_cache_size{type="nodes"} 2`,
		`scheduler_cache_size{type="pods"} 2`,
		`scheduler_cache_size{type="assumed_pods"} 1`,
		`scheduler_goroutines{operation="binding"}`,
		`scheduler_unschedulable_pods{plugin="NodeResourcesFit",profile="default-scheduler"} 2`,
		`scheduler_plugin_evaluation_total{extension_point="Filter",plugin="NodeResourcesFit",profile="default-scheduler"} 3`,
		`scheduler_plugin_evaluation_total{extension_point="Score",plugin="ImageLocality",profile="default-scheduler"} 3`,
		`scheduler_plugin_execution_duration_seconds_count{extension_point="Filter",plugin="NodeResourcesFit",status="Success"} 1`,
		`scheduler_plugin_execution_duration_seconds_count{extension_point="PostFilter",plugin="DefaultPreemption",status="Unschedulable"} 2`,
		`scheduler_framework_extension_point_duration_seconds_count{extension_point="Filter",profile="default-scheduler",status="Success"} 1`,
		`scheduler_framework_extension_point_duration_seconds_count{extension_point="PreFilter",profile="default-scheduler",status="Success"} 1`,
		`scheduler_framework_extension_point_duration_seconds_count{extension_point="Score",profile="default-scheduler",status="Success"} 1`,
		`scheduler_framework_extension_point_duration_seconds_count{extension_point="PostFilter",profile="default-scheduler",status="Unschedulable"} 2`,
		`scheduler_framework_extension_point_duration_seconds_count{extension_point="Bind",profile="default-scheduler",status="Success"} 1`,
		`scheduler_event_handling_duration_seconds_count{event="NodeAdd"}`,
		`scheduler_queueing_hint_execution_duration_seconds_count{event="NodeAdd",hint="Queue",plugin="NodeResourcesFit"} 1`,
		`scheduler_pod_scheduled_after_flush_total 0`,
		`leader_election_master_status{name=`,
		`kubernetes_build_info{build_date=`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Requests and limits of pods that have not ended, in upstream's words and units.
func TestMetricsResources(t *testing.T) {
	s, client, _ := shell(t)
	p := aPod("web", "250m", 7)
	p.Spec.NodeName = "a"
	p.Spec.Containers[0].Resources.Limits = v1.ResourceList{"memory": resource.MustParse("64Mi"), "x.io/gpu": resource.MustParse("2")}
	ended := aPod("ended", "1", 0)
	ended.Status.Phase = v1.PodSucceeded
	for _, p := range []*v1.Pod{p, ended} {
		if _, err := client.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w := httptest.NewRecorder()
	s.routes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics/resources", nil))
	var got []string
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			got = append(got, line)
		}
	}
	const of = `{namespace="default",node="a",pod="web",priority="7",resource=`
	want := "kube_pod_resource_request" + of + `"cpu",scheduler="default-scheduler",unit="cores"} 0.25` + "\n" +
		"kube_pod_resource_limit" + of + `"memory",scheduler="default-scheduler",unit="bytes"} 6.7108864e+07` + "\n" +
		"kube_pod_resource_limit" + of + `"x.io/gpu",scheduler="default-scheduler",unit="integer"} 2` + "\n"
	if strings.Join(got, "") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, ""), want)
	}
}

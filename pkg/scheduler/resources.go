package scheduler

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/resource"
)

// resourcesPage is how many pods are asked for at a time.
const resourcesPage = 500

const resourcesHelp = "broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any."

// metricsResources answers GET /metrics/resources: what every pod that has not ended requests and is limited to. It is read page by page
// when somebody asks: to keep limits for it would cost memory all the time.
func (s *Scheduler) metricsResources(w http.ResponseWriter, r *http.Request) {
	var requests, limits bytes.Buffer
	fmt.Fprintf(&requests, "# HELP kube_pod_resource_request [STABLE] Resources requested by workloads on the cluster, %s\n# TYPE kube_pod_resource_request gauge\n", resourcesHelp)
	fmt.Fprintf(&limits, "# HELP kube_pod_resource_limit [STABLE] Resources limit for workloads on the cluster, %s\n# TYPE kube_pod_resource_limit gauge\n", resourcesHelp)
	options := metav1.ListOptions{Limit: resourcesPage}
	for {
		list, err := s.core.Pods(metav1.NamespaceAll).List(r.Context(), options)
		if err != nil {
			http.Error(w, "list pods: "+err.Error(), http.StatusInternalServerError)
			return
		}
		for i := range list.Items {
			p := &list.Items[i]
			if p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed {
				continue
			}
			of := resource.PodResourcesOptions{}
			resourceLines(&requests, "kube_pod_resource_request", p, resource.PodRequests(p, of))
			resourceLines(&limits, "kube_pod_resource_limit", p, resource.PodLimits(p, of))
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	out := bufio.NewWriter(w)
	_, _ = io.Copy(out, &requests) // who asked may be gone
	_, _ = io.Copy(out, &limits)
	_ = out.Flush()
}

// resourceLines writes a pod's amounts, which are not zero, in the order of their names.
func resourceLines(out *bytes.Buffer, metric string, p *v1.Pod, amounts v1.ResourceList) {
	priority := ""
	if p.Spec.Priority != nil {
		priority = strconv.FormatInt(int64(*p.Spec.Priority), 10)
	}
	for _, name := range slices.Sorted(maps.Keys(amounts)) {
		q := amounts[name]
		value, unit := float64(q.Value()), "integer"
		switch {
		case name == v1.ResourceCPU:
			value, unit = float64(q.MilliValue())/1000, "cores"
		case name == v1.ResourceMemory, name == v1.ResourceStorage, name == v1.ResourceEphemeralStorage, strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix),
			strings.HasPrefix(string(name), v1.ResourceAttachableVolumesPrefix):
			unit = "bytes"
		}
		if value == 0 {
			continue
		}
		fmt.Fprintf(out, "%s{namespace=%q,node=%q,pod=%q,priority=%q,resource=%q,scheduler=%q,unit=%q} %s\n", metric,
			p.Namespace, p.Spec.NodeName, p.Name, priority, string(name), p.Spec.SchedulerName, unit, strconv.FormatFloat(value, 'g', -1, 64))
	}
}

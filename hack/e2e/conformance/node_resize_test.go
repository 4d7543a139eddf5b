//go:build e2e

package conformance

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

var nodeResize = []behaviour{
	{name: "Pod InPlace Resize guaranteed: increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase", test: resizes([3]string{"20m 40Mi", "20m 40Mi", "20m 40Mi"}, [3]string{"30m 60Mi", "30m 60Mi", "15m 30Mi"})},
	{name: "Pod InPlace Resize guaranteed: increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease", test: resizes([3]string{"20m 40Mi", "40m 60Mi", "40m 60Mi"}, [3]string{"30m 60Mi", "20m 40Mi", "20m 40Mi"})},
	{name: "Pod InPlace Resize guaranteed: increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2)", test: resizes([3]string{"20m 40Mi", "40m 40Mi", "20m 40Mi"}, [3]string{"30m 40Mi", "20m 60Mi", "30m 60Mi"})},
	{name: "Pod InPlace Resize resize pod via the replace endpoint", test: resizeReplace},
	{name: "Pod InPlace Resize a container restarts where its policy says so", test: resizeRestarts},
	{name: "Pod InPlace Resize what no node can hold is infeasible", test: resizeInfeasible},
}

// guaranteed reads "cpu memory".
func guaranteed(text string) corev1.ResourceRequirements {
	cpu, memory, _ := strings.Cut(text, " ")
	r := resources(cpu, memory)
	return corev1.ResourceRequirements{Requests: r, Limits: r}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// limits reads a container's limits from inside, in either version of cgroups: CPU per period of 100 ms in us, and bytes.
const limitsScript = `if [ -e /sys/fs/cgroup/cpu.max ]; then cut -d' ' -f1 /sys/fs/cgroup/cpu.max; cat /sys/fs/cgroup/memory.max; ` +
	`else cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory/memory.limit_in_bytes; fi`

func (w *world) resized(name string, want map[string]corev1.ResourceRequirements) {
	w.Helper()
	w.until(startLimit, "the pod is resized", func() error {
		p := w.get(name)
		for _, kind := range []corev1.PodConditionType{corev1.PodResizePending, corev1.PodResizeInProgress} {
			if c := condition(p, kind); c != nil {
				return fmt.Errorf("%s: %s %s", kind, c.Reason, c.Message)
			}
		}
		for _, s := range p.Status.ContainerStatuses {
			r := want[s.Name]
			if s.Resources == nil || !equality.Semantic.DeepEqual(s.Resources.Limits, r.Limits) || !equality.Semantic.DeepEqual(s.Resources.Requests, r.Requests) {
				return fmt.Errorf("%s has %v, want %v", s.Name, s.Resources, r)
			}
			if !equality.Semantic.DeepEqual(s.AllocatedResources, r.Requests) {
				return fmt.Errorf("%s is allocated %v, want %v", s.Name, s.AllocatedResources, r.Requests)
			}
		}
		return nil
	})
	for c, r := range want {
		w.until(30*time.Second, "the cgroup of "+c, func() error {
			text, err := w.exec(name, c, "sh", "-c", limitsScript)
			if err != nil {
				return err
			}
			return differs("limits", text, fmt.Sprintf("%d\n%d", max(1000, r.Limits.Cpu().MilliValue()*100), r.Limits.Memory().Value()))
		})
	}
}

func resizes(before, after [3]string) func(w *world) {
	return func(w *world) {
		p := pod("resize", "")
		p.Spec.Containers = nil
		was, want := map[string]corev1.ResourceRequirements{}, map[string]corev1.ResourceRequirements{}
		var patches []string
		for i, b := range before {
			c := box(fmt.Sprintf("c%d", i+1), sleepScript)
			c.Resources = guaranteed(b)
			p.Spec.Containers = append(p.Spec.Containers, c)
			was[c.Name], want[c.Name] = c.Resources, guaranteed(after[i])
			cpu, memory, _ := strings.Cut(after[i], " ")
			list := fmt.Sprintf(`{"cpu":%q,"memory":%q}`, cpu, memory)
			patches = append(patches, fmt.Sprintf(`{"name":%q,"resources":{"requests":%s,"limits":%s}}`, c.Name, list, list))
		}
		w.ready(p)
		w.resized("resize", was)
		must(api.CoreV1().Pods(w.ns).Patch(ctx, "resize", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[`+strings.Join(patches, ",")+`]}}`), metav1.PatchOptions{}, "resize"))
		w.resized("resize", want)
		same("restarts", restarts(w.get("resize")), 0)
		same("class", w.get("resize").Status.QOSClass, corev1.PodQOSGuaranteed)
	}
}

func resizeReplace(w *world) {
	w.ready(pod("resize", sleepScript, first(func(c *corev1.Container) { c.Resources = guaranteed("20m 40Mi") })))
	pods := api.CoreV1().Pods(w.ns)
	done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		p := w.part("resize", "resize")
		p.Spec.Containers[0].Resources = guaranteed("30m 60Mi")
		_, err := pods.UpdateResize(ctx, "resize", p, metav1.UpdateOptions{})
		return err
	}))
	w.resized("resize", map[string]corev1.ResourceRequirements{"c": guaranteed("30m 60Mi")})
	w.observed("resize", 2)
	if whole, part := w.get("resize"), w.part("resize", "resize"); !equality.Semantic.DeepEqual(whole, part) {
		fatal("the pod is %v, its resize subresource %v", whole, part)
	}
}

func resizeRestarts(w *world) {
	w.ready(pod("resize", sleepScript, restart(corev1.RestartPolicyAlways), first(func(c *corev1.Container) {
		c.Resources = guaranteed("20m 40Mi")
		c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}, {ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.NotRequired}}
	})))
	change := func(cpu, memory string) {
		list := fmt.Sprintf(`{"cpu":%q,"memory":%q}`, cpu, memory)
		must(api.CoreV1().Pods(w.ns).Patch(ctx, "resize", types.StrategicMergePatchType, fmt.Appendf(nil, `{"spec":{"containers":[{"name":"c","resources":{"requests":%s,"limits":%s}}]}}`, list, list), metav1.PatchOptions{}, "resize"))
		w.resized("resize", map[string]corev1.ResourceRequirements{"c": guaranteed(cpu + " " + memory)})
	}
	change("30m", "40Mi")
	same("restarts", restarts(w.get("resize")), 0)
	change("30m", "60Mi")
	w.until(30*time.Second, "a restart", func() error { return differs("restarts", restarts(w.get("resize")), 1) })
}

func resizeInfeasible(w *world) {
	w.ready(pod("resize", sleepScript, first(func(c *corev1.Container) { c.Resources.Requests = resources("20m", "40Mi") })))
	must(api.CoreV1().Pods(w.ns).Patch(ctx, "resize", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"4000"}}}]}}`), metav1.PatchOptions{}, "resize"))
	w.until(30*time.Second, "infeasible", func() error {
		c := condition(w.get("resize"), corev1.PodResizePending)
		if c == nil {
			return errGone
		}
		return differs("reason", c.Reason, corev1.PodReasonInfeasible)
	})
	same("allocated", w.get("resize").Status.ContainerStatuses[0].AllocatedResources.Cpu().String(), "20m")
}

package validate_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// amounts are requests and limits; "" is none.
func amounts(requests, limits map[string]string) corev1.ResourceRequirements {
	list := func(m map[string]string) corev1.ResourceList {
		var l corev1.ResourceList
		for n, q := range m {
			if l == nil {
				l = corev1.ResourceList{}
			}
			l[corev1.ResourceName(n)] = resource.MustParse(q)
		}
		return l
	}
	return corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}
}

func cpu(q string) map[string]string { return map[string]string{"cpu": q} }

// sizedPod is one with a size of its own, nil for none, and containers of sizes.
func sizedPod(own *corev1.ResourceRequirements, containers ...corev1.ResourceRequirements) *corev1.Pod {
	var list []corev1.Container
	for i, r := range containers {
		list = append(list, corev1.Container{Name: string(rune('a' + i)), Image: "x", Resources: r})
	}
	p := podOf(nil, list...)
	p.Spec.Resources = own
	defaults.Pod(p)
	return p
}

// TestOwnResources: what a pod may have as a size of its own.
func TestOwnResources(t *testing.T) {
	for _, tc := range []struct {
		own        corev1.ResourceRequirements
		containers []corev1.ResourceRequirements
		want       string
	}{
		{amounts(cpu("1"), cpu("2")), []corev1.ResourceRequirements{amounts(cpu("500m"), cpu("2")), amounts(cpu("500m"), cpu("2"))}, ""},
		{amounts(nil, cpu("2")), []corev1.ResourceRequirements{amounts(cpu("1"), nil)}, ""},
		{amounts(cpu("500m"), nil), []corev1.ResourceRequirements{amounts(cpu("1"), nil)},
			`spec.resources.requests[cpu]: Invalid value: "500m": must be greater than or equal to aggregate container requests of 1`},
		{amounts(nil, cpu("1")), []corev1.ResourceRequirements{amounts(cpu("600m"), nil), amounts(cpu("600m"), nil)},
			`spec.resources.requests: Invalid value: "1200m": must be less than or equal to cpu limit of 1`},
		{amounts(cpu("1"), cpu("1")), []corev1.ResourceRequirements{amounts(cpu("1"), cpu("2"))},
			`spec.resources.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1`},
		{amounts(map[string]string{"ephemeral-storage": "1Gi"}, nil), []corev1.ResourceRequirements{{}},
			`spec.resources.requests[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"`},
	} {
		got := said(validate.Pod(sizedPod(&tc.own, tc.containers...)))
		if got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

// TestOwnRequests: a pod that says only how much it may use requests what its containers do, else just that.
func TestOwnRequests(t *testing.T) {
	own := amounts(nil, map[string]string{"cpu": "2", "memory": "2Gi"})
	p := sizedPod(&own, amounts(cpu("300m"), nil), amounts(cpu("400m"), nil))
	if r := p.Spec.Resources.Requests; r.Cpu().String() != "700m" || r.Memory().String() != "2Gi" {
		t.Error(r)
	}
}

// TestResize: cpu and memory of containers and of the pod change, and nothing else does.
func TestResize(t *testing.T) {
	both := func(q string) *corev1.ResourceRequirements {
		r := amounts(cpu(q), cpu(q))
		return &r
	}
	part := amounts(cpu("100m"), cpu("200m"))
	pages := amounts(map[string]string{"cpu": "2", "hugepages-2Mi": "4Mi"}, map[string]string{"cpu": "2", "hugepages-2Mi": "4Mi"})
	disk := amounts(map[string]string{"cpu": "100m", "ephemeral-storage": "1Gi"}, cpu("200m"))
	swapped := sizedPod(nil, part, part)
	swapped.Spec.Containers[0].Name, swapped.Spec.Containers[1].Name = "b", "a"
	requests := amounts(cpu("1"), nil)
	for _, tc := range []struct {
		what     string
		old, now *corev1.Pod
		want     string
	}{
		{"grows", sizedPod(both("1"), part), sizedPod(both("2"), part), ""},
		{"given", sizedPod(nil, part), sizedPod(both("2"), part), ""},
		{"taken away", sizedPod(both("1"), part), sizedPod(nil, part), "spec.resources: Forbidden: pod-level resources cannot be removed"},
		{"limit taken away", sizedPod(both("1"), part), sizedPod(&requests, part), "spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"},
		{"huge pages", sizedPod(both("2"), part), sizedPod(&pages, part), "spec: Forbidden: only cpu and memory resources are mutable at pod-level"},
		{"too small", sizedPod(both("1"), part), sizedPod(both("50m"), part),
			`[spec.resources.requests[cpu]: Invalid value: "50m": must be greater than or equal to aggregate container requests of 100m, ` +
				`spec.resources.containers[0][cpu].limits: Invalid value: "200m": must be less than or equal to pod limits of 50m]`},
		{"storage", sizedPod(nil, part), sizedPod(nil, disk), "spec: Forbidden: only cpu and memory resources are mutable"},
		{"reordered", sizedPod(nil, part, part), swapped, "[spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize, " +
			"spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize]"},
		{"added", sizedPod(nil, part), sizedPod(nil, part, part), "spec.containers: Forbidden: containers may not be added or removed on resize"},
	} {
		got := said(validate.PodResize(tc.now, tc.old))
		if got != tc.want {
			t.Errorf("%s: got %s\nwant %s", tc.what, got, tc.want)
		}
	}
	whole := func(q string) *corev1.ResourceRequirements {
		r := amounts(nil, map[string]string{"cpu": q, "memory": "1Gi"})
		return &r
	}
	loose := amounts(map[string]string{"cpu": "1"}, map[string]string{"cpu": "2", "memory": "1Gi"})
	if errs := validate.PodResize(sizedPod(&loose), sizedPod(whole("2"))); len(errs) == 0 {
		t.Error("the class of a pod goes by its own size")
	}
}

// TestResizePolicy: what never starts again cannot take a new size by a restart.
func TestResizePolicy(t *testing.T) {
	const refused = `[0].resizePolicy: Invalid value: "RestartContainer": must be 'NotRequired' when ` + "`restartPolicy` is 'Never'"
	for _, tc := range []struct {
		pod    corev1.RestartPolicy
		own    corev1.ContainerRestartPolicy
		policy corev1.ResourceResizeRestartPolicy
		want   string
	}{
		{corev1.RestartPolicyNever, "", corev1.RestartContainer, refused},
		{corev1.RestartPolicyNever, "", corev1.NotRequired, ""},
		{corev1.RestartPolicyOnFailure, "", corev1.RestartContainer, ""},
		{corev1.RestartPolicyAlways, "", corev1.RestartContainer, ""},
		{corev1.RestartPolicyNever, corev1.ContainerRestartPolicyAlways, corev1.RestartContainer, ""},
	} {
		c := restarted("c", tc.own)
		c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: tc.policy}}
		for at, p := range map[string]*corev1.Pod{"spec.containers": podOf(nil, c), "spec.initContainers": podOf([]corev1.Container{c}, restarted("d", ""))} {
			p.Spec.RestartPolicy = tc.pod
			got, want := said(validate.Pod(p)), tc.want
			if want != "" {
				want = at + want
			}
			if got != want {
				t.Errorf("%s, %s: got  %s\nwant %s", tc.pod, tc.own, got, want)
			}
		}
	}
}

// said is what errors say as a client reads them; "" where there are none.
func said(errs field.ErrorList) string {
	if len(errs) == 0 {
		return ""
	}
	return errs.ToAggregate().Error()
}

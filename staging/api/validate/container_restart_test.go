package validate_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/staging/api/defaults"
	"github.com/sextant-k8s/sextant/staging/api/validate"
)

// restarted is a container with a restart policy, "" for none, and rules.
func restarted(name string, policy corev1.ContainerRestartPolicy, rules ...corev1.ContainerRestartRule) corev1.Container {
	c := corev1.Container{Name: name, Image: "x", RestartPolicyRules: rules}
	if policy != "" {
		c.RestartPolicy = &policy
	}
	return c
}

func rule(action corev1.ContainerRestartRuleAction, operator corev1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) corev1.ContainerRestartRule {
	return corev1.ContainerRestartRule{Action: action, ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: operator, Values: codes}}
}

func podOf(inits []corev1.Container, containers ...corev1.Container) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "d", ResourceVersion: "1"},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, InitContainers: inits, Containers: containers}}
	defaults.Pod(p)
	return p
}

// TestRestartRules: what upstream 1.36 was seen to answer to rules about restarts.
func TestRestartRules(t *testing.T) {
	var many []corev1.ContainerRestartRule
	for range 21 {
		many = append(many, rule("Restart", "In", 3))
	}
	for _, tc := range []struct {
		c    corev1.Container
		want string
	}{
		{restarted("c", "Never", rule("RestartAllContainers", "NotIn", 0)), ""},
		{restarted("c", "Always", rule("RestartAllContainers", "In", 300)), ""},
		{restarted("c", "Never", rule("Restart", "In")), ""},
		{restarted("c", "", rule("RestartAllContainers", "In", 3)), `restartPolicy: Required value: must specify restartPolicy when restart rules are used`},
		{restarted("c", "Sometimes"), `restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"`},
		{restarted("c", "Never", corev1.ContainerRestartRule{Action: "Restart"}), `restartPolicyRules[0].exitCodes: Required value: must be specified`},
		{restarted("c", "Never", rule("Stop", "In", 3)), `restartPolicyRules[0].action: Unsupported value: "Stop": supported values: "Restart", "RestartAllContainers"`},
		{restarted("c", "Never", rule("Restart", "Equals", 3)), `restartPolicyRules[0].exitCodes.operator: Unsupported value: "Equals": supported values: "In", "NotIn"`},
		{restarted("c", "Never", many...), `restartPolicyRules: Too many: 21: must have at most 20 items`},
		{restarted("c", "Never", rule("Restart", "In", make([]int32, 256)...)), `restartPolicyRules[0].exitCodes.values: Too many: 256: must have at most 255 items`},
	} {
		for at, p := range map[string]*corev1.Pod{"spec.containers[0].": podOf(nil, tc.c),
			"spec.initContainers[0].": podOf([]corev1.Container{tc.c}, restarted("d", ""))} {
			got, want := said(validate.Pod(p)), tc.want
			if want != "" {
				want = at + want
			}
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	}
}

// TestRestartedStatus: a container that has ended stays so, unless its rules or those of another start it again.
func TestRestartedStatus(t *testing.T) {
	const stays = `status.containerStatuses[c].state: Forbidden: may not be transitioned to non-terminated state`
	for i, tc := range []struct {
		c, d corev1.Container
		want string
	}{
		{restarted("c", ""), restarted("d", ""), stays},
		{restarted("c", "Never", rule("Restart", "In", 3)), restarted("d", ""), ""},
		{restarted("c", "Never", rule("Restart", "In", 4)), restarted("d", ""), stays},
		{restarted("c", ""), restarted("d", "Never", rule("RestartAllContainers", "In", 4)), ""},
		{restarted("c", "OnFailure"), restarted("d", ""), ""},
	} {
		old := podOf(nil, tc.c, tc.d)
		old.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}}}}
		p := old.DeepCopy()
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
		got := said(validate.PodStatusUpdate(p, old))
		if got != tc.want {
			t.Errorf("%d: got %s, want %s", i, got, tc.want)
		}
	}
}

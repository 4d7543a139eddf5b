package validate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	restartPolicies  = []corev1.ContainerRestartPolicy{corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure}
	restartActions   = []corev1.ContainerRestartRuleAction{corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers}
	restartOperators = []corev1.ContainerRestartRuleOnExitCodesOperator{corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn}
)

// The most rules of a container, and the most exit codes of one of them.
const mostRestartRules, mostExitCodes = 20, 255

// restarting checks what a container says of its own restarts. Rules want a policy beside them, for when none of them matches.
func restarting(c *corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch p := at.Child("restartPolicy"); {
	case c.RestartPolicy == nil && len(c.RestartPolicyRules) > 0:
		errs = append(errs, field.Required(p, "must specify restartPolicy when restart rules are used"))
	case c.RestartPolicy != nil && !slices.Contains(restartPolicies, *c.RestartPolicy):
		errs = append(errs, field.NotSupported(p, *c.RestartPolicy, restartPolicies))
	}
	at = at.Child("restartPolicyRules")
	if n := len(c.RestartPolicyRules); n > mostRestartRules {
		errs = append(errs, field.TooMany(at, n, mostRestartRules))
	}
	for i, r := range c.RestartPolicyRules {
		p := at.Index(i)
		if !slices.Contains(restartActions, r.Action) {
			errs = append(errs, field.NotSupported(p.Child("action"), r.Action, restartActions))
		}
		p = p.Child("exitCodes")
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(p, "must be specified"))
			continue
		}
		if !slices.Contains(restartOperators, r.ExitCodes.Operator) {
			errs = append(errs, field.NotSupported(p.Child("operator"), r.ExitCodes.Operator, restartOperators))
		}
		if n := len(r.ExitCodes.Values); n > mostExitCodes {
			errs = append(errs, field.TooMany(p.Child("values"), n, mostExitCodes))
		}
	}
	return errs
}

// restartsAll tells whether the end of one container may start all of the pod's again.
func restartsAll(s *corev1.PodSpec) bool {
	has := func(c corev1.Container) bool {
		return slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
			return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
		})
	}
	return slices.ContainsFunc(s.InitContainers, has) || slices.ContainsFunc(s.Containers, has)
}

// restarts tells whether a container that ended with code is started again, by its rules, its own policy or the pod's.
func restarts(c *corev1.Container, pod corev1.RestartPolicy, code int32) bool {
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes != nil && slices.Contains(r.ExitCodes.Values, code) == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	if c.RestartPolicy != nil {
		pod = corev1.RestartPolicy(*c.RestartPolicy)
	}
	return pod == corev1.RestartPolicyAlways || pod == corev1.RestartPolicyOnFailure && code != 0
}

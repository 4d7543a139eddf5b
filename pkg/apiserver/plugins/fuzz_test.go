package plugins

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzConfiguration reads anything as an AdmissionConfiguration, and makes every plugin that it configures: it is refused, or
// all of them are there.
func FuzzConfiguration(f *testing.F) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- "
	for _, s := range []string{
		"", "a: [", head, head + "{name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {enforce: baseline, enforce-version: v1.30}, exemptions: {namespaces: [a]}}}",
		head + "{name: EventRateLimit, configuration: {apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Namespace, qps: 1, burst: 2, cacheSize: 3}]}}",
		head + "{name: ResourceQuota, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration, limitedResources: [{resource: pods, matchContains: [cpu], matchScopes: [{scopeName: PriorityClass, operator: In, values: [a]}]}]}}",
		head + "{name: PodNodeSelector, configuration: {podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: a=b, n: c=d}}}", head + "{name: ValidatingAdmissionWebhook, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: none}}",
		head + "{name: PodTolerationRestriction, configuration: {apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1, kind: Configuration, default: [{key: d, operator: Exists}]}}", head + "{name: PodSecurity, path: none.yaml}",
		head + "{name: ImagePolicyWebhook, configuration: {imagePolicy: {kubeConfigFile: none, allowTTL: 1, denyTTL: -1, retryBackoff: 500, defaultAllow: true}}}", head + "{name: PodSecurity, configuration: 1}",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("/")) && bytes.ContainsAny(data, "\\%") || bytes.Contains(data, []byte("/dev")) {
			return // it might name a device, which never ends
		}
		file := filepath.Join(dir, "admission.yaml")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		said, err := ReadConfiguration(file)
		if err != nil {
			return
		}
		chain, err := New(Config{Enable: []string{"EventRateLimit", "PodNodeSelector", "PodTolerationRestriction"}, Configuration: withLimit(said), Authz: signers(t, nil)})
		if err == nil && len(chain) == 0 {
			t.Errorf("%q makes no plugin", data)
		}
		_, _ = ImagePolicyWebhook(said) // it must have a configuration
	})
}

package kubelet

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

func TestFieldFlags(t *testing.T) {
	c, _, err := load(t, "{staticPodPath: /x, evictionHard: {memory.available: 1Mi, pid.available: 5%}, syncFrequency: 5s, cgroupsPerQOS: true, staticPodURLHeader: {A: [x]}, kubeReserved: {memory: 1Mi}}",
		"--eviction-hard=nodefs.available<3%,memory.available<2Mi", "--sync-frequency=7s", "--manifest-url-header=A:1", "--manifest-url-header=B: 2", "--pod-max-pids=9", "--serialize-image-pulls=false",
		"--seccomp-default", "--system-reserved=cpu=1,memory=2Mi", "--tls-cipher-suites=TLS_AES_128_GCM_SHA256", "--allowed-unsafe-sysctls=kernel.msg*,net.core.somaxconn", "--feature-gates=A=true,B=false",
		"--authentication-token-webhook-cache-ttl=3s", "--reserved-memory=0:memory=1Gi;1:memory=2Gi", "--http-check-frequency=1m30s", "--provider-id=x://y", "--qos-reserved=memory=50%")
	if err != nil {
		t.Fatal(err)
	}
	k := c.Kubelet
	got, err := json.Marshal([]any{k.EvictionHard, k.SyncFrequency, k.StaticPodURLHeader, k.PodPidsLimit, k.SerializeImagePulls, k.SeccompDefault, k.SystemReserved, k.KubeReserved, k.TLSCipherSuites, k.AllowedUnsafeSysctls,
		k.FeatureGates, k.Authentication.Webhook.CacheTTL, k.ReservedMemory, k.HTTPCheckFrequency, k.ProviderID, k.QOSReserved})
	want := `[{"memory.available":"2Mi","nodefs.available":"3%"},"7s",{"A":["1"],"B":["2"]},9,false,true,{"cpu":"1","memory":"2Mi"},{"memory":"1Mi"},["TLS_AES_128_GCM_SHA256"],["kernel.msg*","net.core.somaxconn"],` +
		`{"A":true,"B":false},"3s",[{"numaNode":0,"limits":{"memory":"1Gi"}},{"numaNode":1,"limits":{"memory":"2Gi"}}],"1m30s","x://y",{"memory":"50%"}]`
	if err != nil || strings.ReplaceAll(string(got), `\u003c`, "<") != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, arg := range []string{"--sync-frequency=7", "--pod-max-pids=many", "--eviction-hard=memory.available=1Mi", "--manifest-url-header=A", "--reserved-memory=memory", "--feature-gates=A=maybe", "--seccomp-default=maybe"} {
		if _, _, _, err := ParseFlags([]string{arg}); err == nil {
			t.Errorf("%s is taken", arg)
		}
	}
}

// TestFieldFlagsNameFields holds that each flag of the table is of a field there is, and of the kind it is.
func TestFieldFlagsNameFields(t *testing.T) {
	sample := map[flagKind]string{asText: "x", asWhole: "1", asYesNo: "true", asSpan: "1s", asList: "a", asPairs: "a=b", asSwitches: "a=true", asThresholds: "a<b", asHeaders: "a:b", asMemories: "0:memory=1Gi"}
	for _, f := range fieldFlags {
		o := overlay{}
		if err := (&fieldValue{o, f, ""}).Set(sample[f.kind]); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		var k kubeletv1beta1.KubeletConfiguration
		if err := o.apply(&k); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		if reflect.DeepEqual(k, kubeletv1beta1.KubeletConfiguration{}) {
			t.Errorf("%s says nothing", f.name)
		}
	}
}

func TestCloudProvider(t *testing.T) {
	c, _, err := load(t, "{staticPodPath: /x}", "--cloud-provider=external", "--node-ip=192.0.2.1")
	if err != nil || len(c.Taints) != 1 || c.Taints[0] != (v1.Taint{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: "NoSchedule"}) || c.provided() != "192.0.2.1" {
		t.Error(c.Taints, err)
	}
	if _, _, err := load(t, "{staticPodPath: /x}", "--cloud-provider=aws"); err == nil {
		t.Error("a provider inside the kubelet is taken")
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for text, want := range map[string]string{
		"qosReserved: {cpu: 50%}":                                        "want memory",
		"qosReserved: {memory: 150%}":                                    "0% to 100%",
		"{cgroupsPerQOS: false}":                                         "enforceNodeAllocatable",
		"{crashLoopBackOff: {maxContainerRestartPeriod: 1h}}":            "1s to 5m",
		"{userNamespaces: {idsPerPod: 1000}}":                            "multiple of 65536",
		"{oomScoreAdj: 2000}":                                            "oomScoreAdj",
		"{nodeStatusMaxImages: -2}":                                      "nodeStatusMaxImages",
		"{registryPullQPS: -1}":                                          "registryPullQPS",
		"{configMapAndSecretChangeDetectionStrategy: Guess}":             "want Get, Cache or Watch",
		"{podsPerCore: -1}":                                              "podsPerCore",
		"{shutdownGracePeriod: 1s, shutdownGracePeriodCriticalPods: 2s}": "cannot be longer",
	} {
		if _, _, err := load(t, text, "--pod-manifest-path=/x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	c, _, err := load(t, "{mergeDefaultEvictionSettings: true, evictionHard: {memory.available: 1Mi}, podsPerCore: 1, crashLoopBackOff: {maxContainerRestartPeriod: 3s}, userNamespaces: {idsPerPod: 131072}, registryPullQPS: 2, cgroupsPerQOS: false, enforceNodeAllocatable: [none]}", "--pod-manifest-path=/x")
	if err != nil || c.Kubelet.EvictionHard["memory.available"] != "1Mi" || c.Kubelet.EvictionHard["nodefs.available"] != "10%" || c.Kubelet.MaxPods > 64 || c.maxBackoff().Seconds() != 3 || c.userRange() != 131072 || c.pullPace().Burst() != 10 {
		t.Errorf("%+v %v", c.Kubelet, err)
	}
}

func TestProtectKernel(t *testing.T) {
	dir := t.TempDir()
	for name, value := range kernelWants {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := protectKernel(dir); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kernel/panic"), []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := protectKernel(dir); err == nil || !strings.Contains(err.Error(), "kernel/panic, expected value: 10, actual value: 0") {
		t.Error(err)
	}
}

func TestClassMemory(t *testing.T) {
	of := func(spec string) *v1.Pod { return podOf(t, "p", spec) }
	guaranteed := of("{containers: [{name: c, resources: {requests: {cpu: 1, memory: 100}, limits: {cpu: 1, memory: 100}}}]}")
	burstable, plain := of("{containers: [{name: c, resources: {requests: {memory: 50}}}]}"), of("{containers: [{name: c}]}")
	ended := guaranteed.DeepCopy()
	ended.Status.Phase = v1.PodFailed
	if a, b := classMemory(1000, 0.5, []*v1.Pod{guaranteed, burstable, plain, ended}); a != 950 || b != 925 {
		t.Error(a, b)
	}
	if a, b := classMemory(60, 1, []*v1.Pod{guaranteed, burstable}); a != 0 || b != 0 {
		t.Error(a, b)
	}
}

func TestFlatCgroups(t *testing.T) {
	c := newCgroups("/x", "cgroupfs", slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)))
	c.flat = true
	pod := podOf(t, "p", "{containers: [{name: c}]}")
	if err := c.Create(pod); err != nil || c.Parent(pod) != "/x" || c.exists("/x") {
		t.Error(err, c.Parent(pod))
	}
}

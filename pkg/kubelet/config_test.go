package kubelet

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kubeadm is the configuration file as kubeadm writes it to /var/lib/kubelet/config.yaml.
const kubeadm = `apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous: {enabled: false}
  webhook: {cacheTTL: 0s, enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization:
  mode: Webhook
  webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: ""
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging:
  flushFrequency: 0
  options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
resolvConf: /run/systemd/resolve/resolv.conf
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
`

func load(t *testing.T, text string, args ...string) (Config, string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, _, _, err := ParseFlags(append([]string{"--config", file}, args...))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c, err := Load(context.Background(), f, Release, slog.New(slog.NewTextHandler(&log, nil)))
	return c, log.String(), err
}

func TestKubeadmConfiguration(t *testing.T) {
	c, said, err := load(t, kubeadm, "--container-runtime-endpoint=unix:///run/x.sock", "--node-ip=192.0.2.1", "--hostname-override=N1", "--pod-infra-container-image=pause:3.10",
		"--register-with-taints=node-role.kubernetes.io/control-plane=:NoSchedule")
	if err != nil || said != "" {
		t.Fatal(err, said)
	}
	k := c.Kubelet
	if c.NodeName != "n1" || k.ContainerRuntimeEndpoint != "unix:///run/x.sock" || !k.RotateCertificates || k.CgroupDriver != "systemd" || k.StaticPodPath != "/etc/kubernetes/manifests" ||
		*k.ResolverConfig != "/run/systemd/resolve/resolv.conf" || len(c.Taints) != 1 || c.Flags.CertDir != "/var/lib/kubelet/pki" {
		t.Errorf("%+v", c)
	}
	if k.NodeStatusUpdateFrequency.Duration != 10*time.Second || k.Authentication.Webhook.CacheTTL.Duration != 2*time.Minute || k.MaxPods != 110 {
		t.Error("a zero is a default")
	}
}

func TestConfigurationIsStrict(t *testing.T) {
	for text, want := range map[string]string{
		"kind: KubeletConfiguration\nmaxPodz: 3": `unknown field "maxPodz"`, "kind: Pod": "want kind KubeletConfiguration", "maxPods: many": "maxPods",
	} {
		if _, _, err := load(t, text, "--pod-manifest-path=/x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, said, err := load(t, "{staticPodPath: /x, volumePluginDir: x}"); err != nil || !strings.Contains(said, "field=volumePluginDir") {
		t.Error(err, said)
	}
	if _, _, err := load(t, "{}"); err == nil || !strings.Contains(err.Error(), "nothing to run") {
		t.Error(err)
	}
	if _, _, err := load(t, "{}", "--bootstrap-kubeconfig=/x"); err == nil || !strings.Contains(err.Error(), "give that too") {
		t.Error(err)
	}
}

func TestDropInsAndFlagsWin(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"10-a.conf": "maxPods: 5", "20-b.conf": "maxPods: 6", "ignored.yaml": "maxPods: 7"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := "{staticPodPath: /x, maxPods: 4, clusterDomain: a}"
	if c, _, err := load(t, base, "--config-dir", dir); err != nil || c.Kubelet.MaxPods != 6 || c.Kubelet.ClusterDomain != "a" {
		t.Error(c.Kubelet.MaxPods, err)
	}
	if c, _, err := load(t, base, "--config-dir", dir, "--max-pods=9"); err != nil || c.Kubelet.MaxPods != 9 {
		t.Error(c.Kubelet.MaxPods, err)
	}
}

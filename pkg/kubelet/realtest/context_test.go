package realtest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEnvironment runs a pod for each row to its end: what a container finds itself in.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.configMap("cm", map[string]string{"a": "1", "b.c": "2"})
	s.secret("sec", map[string]string{"s": "x"})
	ctx := context.Background()
	if _, err := node.admin.CoreV1().Services(s.name).Create(ctx, &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web-1"}, Spec: v1.ServiceSpec{ClusterIP: "10.96.7.7",
		Ports: []v1.ServicePort{{Name: "http", Port: 8765}, {Name: "dns", Port: 53, Protocol: v1.ProtocolUDP}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n, err := node.admin.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cpus, memory := n.Status.Allocatable.Cpu(), n.Status.Allocatable.Memory()
	for _, c := range []struct{ name, container, pod, script, want string }{
		{"from", `envFrom: [{configMapRef: {name: cm}}, {prefix: P-_, secretRef: {name: sec}}], env: [{name: a, value: over}]`, "", `tr '\0' '\n' < /proc/1/environ | grep -E '^(a|b.c|P-_s)=' | sort`, "P-_s=x\na=over\nb.c=2\n"},
		{"refs", `env: [{name: A, valueFrom: {configMapKeyRef: {name: cm, key: a}}}, {name: B, valueFrom: {secretKeyRef: {name: sec, key: s}}}, {name: C, valueFrom: {secretKeyRef: {name: none, key: s, optional: true}}}]`, "", `echo $A$B ${C-unset}`, "1x unset\n"},
		{"compose", `env: [{name: A, value: a}, {name: B, value: "$(A);;$(A)$$(A)$(NONE)"}]`, "", `echo "$B"`, "a;;a$(A)$(NONE)\n"},
		{"args", `env: [{name: A, value: substituted}], args: [-c, "echo $(A)"]`, "", "", "substituted\n"},
		{"fields", `env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: B, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}, {name: C, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, {name: D, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, {name: E, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}, {name: F, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}]`, "", `echo $A $B $C $D $E $F`,
			"fields " + s.name + " n1 " + nodeIP + " " + nodeIP + " default\n"},
		{"podip", `env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: B, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}]`, "", `ip -4 -o addr show dev eth0 | grep -q " $A/" && [ $A = $B ] && echo same`, "same\n"},
		{"uid", `env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]`, "", `echo ${#A}`, "36\n"},
		{"resources", `env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}, {name: B, valueFrom: {resourceFieldRef: {resource: limits.memory}}}, {name: C, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}]`, "", `echo $A $B $C`,
			fmt.Sprintf("%d %d 0\n", cpus.Value(), memory.Value())},
		{"services", `env: [{name: A, value: "$(WEB_1_SERVICE_HOST):$(WEB_1_SERVICE_PORT)"}]`, "", `echo $A $WEB_1_PORT $WEB_1_SERVICE_PORT_DNS $WEB_1_PORT_53_UDP_ADDR $WEB_1_PORT_8765_TCP_PROTO $KUBERNETES_SERVICE_HOST`,
			"10.96.7.7:8765 tcp://10.96.7.7:8765 53 10.96.7.7 tcp 10.96.0.1\n"},
		{"no-links", ``, "enableServiceLinks: false", `echo ${WEB_1_PORT-none} $KUBERNETES_SERVICE_HOST`, "none 10.96.0.1\n"},
		{"dir", `workingDir: /tmp`, "", `pwd`, "/tmp\n"},
		{"user", `securityContext: {runAsUser: 1001, runAsGroup: 2002}`, "securityContext: {runAsUser: 5, runAsGroup: 6, supplementalGroups: [9]}", `id`, "uid=1001 gid=2002 groups=9,2002\n"},
		{"readonly", `securityContext: {readOnlyRootFilesystem: true}`, "", `touch /x 2>/dev/null || echo refused`, "refused\n"},
		{"caps", `securityContext: {capabilities: {drop: [ALL], add: [NET_ADMIN]}}`, "", `grep CapEff /proc/self/status`, "CapEff:\t0000000000001000\n"},
		{"unprivileged", `securityContext: {privileged: false}`, "", `mount -t tmpfs t /tmp 2>/dev/null || echo refused`, "refused\n"},
		{"privileged", `securityContext: {privileged: true}`, "", `mount -t tmpfs t /tmp && echo done`, "done\n"},
		{"no-new-privs", `securityContext: {allowPrivilegeEscalation: false, runAsUser: 1000}`, "", `grep NoNewPrivs /proc/self/status`, "NoNewPrivs:\t1\n"},
		{"seccomp", `securityContext: {seccompProfile: {type: RuntimeDefault}}`, "", `grep Seccomp: /proc/self/status`, "Seccomp:\t2\n"},
		{"unconfined", ``, "", `grep Seccomp: /proc/self/status`, "Seccomp:\t0\n"},
		{"sysctl", ``, `securityContext: {sysctls: [{name: kernel.shm_rmid_forced, value: "1"}, {name: kernel.msgmax, value: "10000"}]}`, `cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax`, "1\n10000\n"},
		{"hostname", ``, "{hostname: web, subdomain: sub}", `hostname; grep -c "web.sub.` + s.name + `.svc.cluster.local.web$" /etc/hosts`, "web\n1\n"},
		{"fqdn", ``, "{hostname: web, subdomain: s, setHostnameAsFQDN: true}", `hostname`, "web.s." + s.name + ".svc.cluster.local\n"},
		{"aliases", ``, `hostAliases: [{ip: 192.0.2.9, hostnames: [one, two]}]`, `grep 192.0.2.9 /etc/hosts; head -1 /etc/hosts`, "192.0.2.9\tone\ttwo\n# Kubernetes-managed hosts file.\n"},
		{"dns", ``, "", `cat /etc/resolv.conf`, "search " + s.name + ".svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"},
		{"dns-none", ``, `{dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.53], searches: [a.b], options: [{name: ndots, value: "2"}, {name: edns0}]}}`, `cat /etc/resolv.conf`, "search a.b\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"},
		{"host", ``, `{hostNetwork: true, hostPID: true, hostIPC: true, dnsPolicy: ClusterFirstWithHostNet}`, `ip -o addr show dev uplink | grep -c ` + nodeIP + `; grep nameserver /etc/resolv.conf; head -1 /etc/hosts`, "1\nnameserver 10.96.0.10\n# Kubernetes-managed hosts file (host network).\n"},
		{"share", ``, `shareProcessNamespace: true`, `ps | grep -c '[p]ause'`, "1\n"},
		{"userns", ``, `hostUsers: false, securityContext: {fsGroup: 7}, volumes: [{name: v, emptyDir: {}}]`, `[ $(cut -c11-21 < /proc/self/uid_map) -ge 65536 ] && echo mapped; id -u; touch /tmp/x && stat -c %u /tmp/x`, "mapped\n0\n0\n"},
		{"own-pid", ``, ``, `echo $$$$`, "1\n"},
		{"token", ``, `automountServiceAccountToken: true`, `cd /var/run/secrets/kubernetes.io/serviceaccount; cat namespace; echo; ls; [ $(wc -c < token) -gt 300 ] && echo long`, s.name + "\nca.crt\nnamespace\ntoken\nlong\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sub := &space{t, s.name}
			pod := strings.TrimSuffix(strings.TrimPrefix(c.pod, "{"), "}")
			if !strings.HasPrefix(c.pod, "{") {
				pod = c.pod
			}
			body := fmt.Sprintf(`command: [sh, -c, %q]`, c.script)
			if c.script == "" {
				body = "command: [sh]"
			}
			if c.container != "" {
				body += ", " + c.container
			}
			if pod != "" {
				pod += ", "
			}
			if c.name == "token" {
				sub.configMap("kube-root-ca.crt", map[string]string{"ca.crt": "x"})
			}
			if got := sub.says(c.name, fmt.Sprintf("{restartPolicy: Never, %scontainers: [{name: c, %s}]}", pod, body)); got != c.want {
				t.Errorf("printed %q, want %q", got, c.want)
			}
			sub.gone(c.name)
		})
	}
}

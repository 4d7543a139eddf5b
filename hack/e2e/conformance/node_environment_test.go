//go:build e2e

package conformance

import (
	"net"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var nodeEnvironment = []behaviour{
	{name: "ConfigMap should be consumable via environment variable", test: configMapEnvironment},
	{name: "ConfigMap should be consumable via the environment", test: environmentFrom(false)},
	{name: "ConfigMap should be consumable as environment variable names with various prefixes", test: environmentPrefixes(false)},
	{name: "Secrets should be consumable from pods in env vars", test: secretEnvironment},
	{name: "Secrets should be consumable via the environment", test: environmentFrom(true)},
	{name: "Secrets should be consumable as environment variable names variable names with various prefixes", test: environmentPrefixes(true)},
	{name: "ConfigMap should fail to create ConfigMap with empty key", test: emptyKeys},
	{name: "Downward API should provide pod name, namespace and IP address as env vars", test: downwardEnvironment},
	{name: "Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars", test: downwardResources},
	{name: "Downward API should provide default limits.cpu/memory from node allocatable", test: downwardDefaults},
	{name: "Variable Expansion should allow composing env vars into new env vars", test: expandEnvironment},
	{name: "Variable Expansion should allow substituting values in a container's command and args", test: expandCommand},
	{name: "Variable Expansion should allow substituting values in a volume subpath", test: expandSubpath},
	{name: "Variable Expansion should fail substituting values in a volume subpath with backticks", test: expandSubpathFails("..")},
	{name: "Variable Expansion should fail substituting values in a volume subpath with absolute path", test: expandSubpathFails("/tmp")},
	{name: "Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container", test: expandSubpathMended},
	{name: "Variable Expansion should succeed in writing subpaths in container", test: expandSubpathWrites},
	{name: "Containers wait for what their environment names", test: environmentAbsent},
}

func (w *world) configMap(name string, data map[string]string) *corev1.ConfigMap {
	w.Helper()
	return must(api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{}))
}

func (w *world) secret(name string, data map[string]string) *corev1.Secret {
	w.Helper()
	return must(api.CoreV1().Secrets(w.ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, metav1.CreateOptions{}))
}

func configMapEnvironment(w *world) {
	w.configMap("m", map[string]string{"data-1": "value-1"})
	contains(w.prints(pod("env", "env", env("CONFIG_DATA_1", &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}, Key: "data-1"}}))), "CONFIG_DATA_1=value-1")
}

func secretEnvironment(w *world) {
	w.secret("s", map[string]string{"data-1": "value-1"})
	contains(w.prints(pod("env", "env", env("SECRET_DATA", &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "data-1"}}))), "SECRET_DATA=value-1")
}

// from is an envFrom of "source", of either kind.
func from(secret bool, prefix string) corev1.EnvFromSource {
	ref := corev1.LocalObjectReference{Name: "source"}
	if secret {
		return corev1.EnvFromSource{Prefix: prefix, SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref}}
	}
	return corev1.EnvFromSource{Prefix: prefix, ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref}}
}

func (w *world) source(secret bool, data map[string]string) {
	if secret {
		w.secret("source", data)
		return
	}
	w.configMap("source", data)
}

// plainEnv runs env without a shell, which would drop names that are not its own.
func plainEnv(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"env"} }

func environmentFrom(secret bool) func(w *world) {
	return func(w *world) {
		w.source(secret, map[string]string{"data_1": "value-1", "data_2": "value-2"})
		text := w.prints(pod("env", "env", plainEnv, first(func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{from(secret, ""), from(secret, "p-")} })))
		for _, want := range []string{"data_1=value-1", "data_2=value-2", "p-data_1=value-1", "p-data_2=value-2"} {
			contains(text, want)
		}
	}
}

func environmentPrefixes(secret bool) func(w *world) {
	return func(w *world) {
		w.source(secret, map[string]string{"data_1": "value-1"})
		prefixes := []string{"1-", "$_-", "p_", "`~!@#%^&*()", "a b;"}
		text := w.prints(pod("env", "env", plainEnv, first(func(c *corev1.Container) {
			for _, p := range prefixes {
				c.EnvFrom = append(c.EnvFrom, from(secret, p))
			}
		})))
		for _, p := range prefixes {
			contains(text, p+"data_1=value-1")
		}
	}
}

func emptyKeys(w *world) {
	_, err := api.CoreV1().ConfigMaps(w.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "empty"}, Data: map[string]string{"": "v"}}, metav1.CreateOptions{})
	refused(err, apierrors.IsInvalid)
	_, err = api.CoreV1().Secrets(w.ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "empty"}, StringData: map[string]string{"": "v"}}, metav1.CreateOptions{})
	refused(err, apierrors.IsInvalid)
}

func field(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
}

func resourceField(container, name string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: container, Resource: name}}
}

func downwardEnvironment(w *world) {
	text := w.prints(pod("down", "env", func(p *corev1.Pod) { p.Annotations = map[string]string{"mark": "of-x"} },
		env("POD_NAME", field("metadata.name")), env("POD_NAMESPACE", field("metadata.namespace")), env("POD_IP", field("status.podIP")), env("POD_IPS", field("status.podIPs")),
		env("POD_UID", field("metadata.uid")), env("HOST_IP", field("status.hostIP")), env("HOST_IPS", field("status.hostIPs")), env("NODE", field("spec.nodeName")),
		env("ACCOUNT", field("spec.serviceAccountName")), env("MARK", field("metadata.annotations['mark']")), env("LABEL", field("metadata.labels['name']"))))
	p := w.get("down")
	for _, want := range []string{"POD_NAME=down", "POD_NAMESPACE=" + w.ns, "POD_UID=" + string(p.UID), "HOST_IP=" + p.Status.HostIP, "HOST_IPS=" + p.Status.HostIP,
		"NODE=" + p.Spec.NodeName, "ACCOUNT=default", "MARK=of-x", "LABEL=down"} {
		contains(text, want)
	}
	ip := regexp.MustCompile(`POD_IP=(\S+)`).FindStringSubmatch(text)
	if ip == nil || net.ParseIP(ip[1]) == nil {
		fatal("pod IP in %s", text)
	}
	contains(text, "POD_IPS="+ip[1])
}

func downwardResources(w *world) {
	text := w.prints(pod("down", "env", first(func(c *corev1.Container) {
		c.Resources = corev1.ResourceRequirements{Requests: resources("250m", "32Mi"), Limits: resources("1250m", "64Mi")}
	}), env("CPU_LIMIT", resourceField("", "limits.cpu")), env("MEMORY_LIMIT", resourceField("", "limits.memory")),
		env("CPU_REQUEST", resourceField("", "requests.cpu")), env("MEMORY_REQUEST", resourceField("c", "requests.memory"))))
	for _, want := range []string{"CPU_LIMIT=2", "MEMORY_LIMIT=67108864", "CPU_REQUEST=1", "MEMORY_REQUEST=33554432"} {
		contains(text, want)
	}
}

func downwardDefaults(w *world) {
	text := w.prints(pod("down", "env", env("CPU_LIMIT", resourceField("", "limits.cpu")), env("MEMORY_LIMIT", resourceField("", "limits.memory"))))
	node := must(api.CoreV1().Nodes().Get(ctx, w.get("down").Spec.NodeName, metav1.GetOptions{}))
	contains(text, "CPU_LIMIT="+node.Status.Allocatable.Cpu().String())
	memory := node.Status.Allocatable.Memory().Value()
	got := regexp.MustCompile(`MEMORY_LIMIT=(\d+)`).FindStringSubmatch(text)
	if got == nil {
		fatal("no memory limit in %s", text)
	}
	same("memory limit", got[1], number(memory))
}

func expandEnvironment(w *world) {
	contains(w.prints(pod("expand", "env", setenv("FOO", "foo-value"), setenv("BAR", "bar-value"), setenv("FOOBAR", "$(FOO);;$(BAR)"), setenv("KEPT", "$(NONE) $$(FOO)"))), "FOOBAR=foo-value;;bar-value")
	contains(w.log("expand", "c"), "KEPT=$(NONE) $(FOO)")
}

func expandCommand(w *world) {
	same("command", w.prints(pod("command", `TEST_VAR=wrong echo "$(TEST_VAR)"`, setenv("TEST_VAR", "test-value"))), "test-value")
	same("args", w.prints(pod("args", "", setenv("TEST_VAR", "test-value"), first(func(c *corev1.Container) {
		c.Command, c.Args = []string{"sh", "-c"}, []string{`TEST_VAR=wrong echo "$(TEST_VAR)"`}
	}))), "test-value")
}

// expanding mounts a fresh volume at a subpath of the pod's own name.
func expanding(expr string) []edit {
	return []edit{env("POD_NAME", field("metadata.name")), volume("work", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		first(func(c *corev1.Container) {
			c.VolumeMounts = []corev1.VolumeMount{{Name: "work", MountPath: "/logscontainer", SubPathExpr: expr}, {Name: "work", MountPath: "/testcontainer"}}
		})}
}

func expandSubpath(w *world) {
	w.prints(pod("subpath", "test -d /testcontainer/subpath", expanding("$(POD_NAME)")...))
}

func expandSubpathFails(value string) func(w *world) {
	return func(w *world) {
		edits := expanding("$(POD_NAME)")
		edits[0] = setenv("POD_NAME", value)
		w.create(pod("subpath", "sleep 10000", edits...))
		w.waits("subpath", "CreateContainerConfigError")
	}
}

func expandSubpathMended(w *world) {
	edits := expanding("$(POD_NAME)")
	edits[0] = env("POD_NAME", field("metadata.annotations['mysubpath']"))
	w.create(pod("mended", "sleep 10000", edits...))
	w.waits("mended", "CreateContainerConfigError")
	p := w.get("mended")
	p.Annotations = map[string]string{"mysubpath": "mypath"}
	must(api.CoreV1().Pods(w.ns).Update(ctx, p, metav1.UpdateOptions{}))
	w.isReady("mended")
	w.sh("mended", "test -d /testcontainer/mypath")
}

func expandSubpathWrites(w *world) {
	edits := expanding("$(POD_NAME)")
	edits[0] = env("POD_NAME", field("metadata.annotations['mysubpath']"))
	edits = append(edits, func(p *corev1.Pod) { p.Annotations = map[string]string{"mysubpath": "mypath"} })
	w.ready(pod("writes", sleepScript, edits...))
	w.sh("writes", "touch /logscontainer/test.log && test -f /testcontainer/mypath/test.log")
	done(w.update("writes", func(p *corev1.Pod) { p.Annotations["mysubpath"] = "mynewpath" }))
	w.isReady("writes")
	w.sh("writes", "test -f /logscontainer/test.log")
}

func environmentAbsent(w *world) {
	w.create(pod("absent", "env; sleep 1000", env("X", &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "later"}, Key: "k"}})))
	w.event(30*time.Second, "absent", "Failed", `configmap "later" not found`)
	w.configMap("later", map[string]string{"k": "v"})
	w.isReady("absent")
	w.says("absent", "c", "X=v", 10*time.Second)
}

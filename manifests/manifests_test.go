package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/sextant-k8s/sextant/staging/api/scheme"
)

// objects decodes every document of a file; an unknown or a doubled field fails.
func objects(t *testing.T, path string) []runtime.Object {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var out []runtime.Object
	for docs := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw))); ; {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		o, _, err := strict.Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%s, document %d: %v", path, len(out)+1, err)
		}
		out = append(out, o)
	}
}

func glob(t *testing.T, pattern string, want int) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < want {
		t.Fatalf("%s: found %v, want %d or more: %v", pattern, files, want, err)
	}
	return files
}

func TestStaticPods(t *testing.T) {
	for _, path := range glob(t, "static-pods/*.yaml", 4) {
		daemon := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(daemon, func(t *testing.T) {
			all := objects(t, path)
			if len(all) != 1 {
				t.Fatalf("a kubelet reads one pod from a file, here are %d objects", len(all))
			}
			pod, ok := all[0].(*v1.Pod)
			if !ok {
				t.Fatalf("a kubelet runs pods, not %T", all[0])
			}
			if pod.Name != daemon || pod.Namespace != "kube-system" || !pod.Spec.HostNetwork || len(pod.Spec.Containers) != 1 {
				t.Fatalf("want one container on the host's network in kube-system/%s, got %s/%s", daemon, pod.Namespace, pod.Name)
			}
			c := &pod.Spec.Containers[0]
			if want := "registry.sextant.local/" + daemon + ":dev"; c.Image != want {
				t.Errorf("the image is %s, want %s", c.Image, want)
			}
			checkFlags(t, daemon, c.Args)
			checkFiles(t, c)
			checkVolumes(t, &pod.Spec)
			checkReferences(t, c)
			checkProbes(t, daemon, c)
		})
	}
}

// filePath is where an argument names something on the disk.
var filePath = regexp.MustCompile(`=(/(?:etc|var)/\S+)$`)

// checkFiles sees that what the flags name is there inside the container, whose own file system is read only.
func checkFiles(t *testing.T, c *v1.Container) {
	t.Helper()
	for _, arg := range c.Args {
		m := filePath.FindStringSubmatch(arg)
		if m == nil {
			continue
		}
		if !slices.ContainsFunc(c.VolumeMounts, func(v v1.VolumeMount) bool {
			return m[1] == v.MountPath || strings.HasPrefix(m[1], v.MountPath+"/")
		}) {
			t.Errorf("%s: no volume holds it", arg)
		}
	}
}

// checkVolumes sees that host paths keep their names in the container, as the flags and the kubeconfigs expect.
func checkVolumes(t *testing.T, spec *v1.PodSpec) {
	t.Helper()
	for _, m := range spec.Containers[0].VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v v1.Volume) bool { return v.Name == m.Name })
		switch {
		case i < 0:
			t.Errorf("mount %s has no volume", m.Name)
		case spec.Volumes[i].HostPath == nil:
			t.Errorf("volume %s: a static pod has nothing but the host's files", m.Name)
		case spec.Volumes[i].HostPath.Path != m.MountPath:
			t.Errorf("volume %s is %s on the host and %s inside", m.Name, spec.Volumes[i].HostPath.Path, m.MountPath)
		}
	}
	if len(spec.Volumes) != len(spec.Containers[0].VolumeMounts) {
		t.Errorf("%d volumes, of which %d are mounted", len(spec.Volumes), len(spec.Containers[0].VolumeMounts))
	}
}

// reference is $(NAME) in an argument.
var reference = regexp.MustCompile(`\$\(([A-Z_]+)\)`)

func checkReferences(t *testing.T, c *v1.Container) {
	t.Helper()
	for _, arg := range c.Args {
		for _, m := range reference.FindAllStringSubmatch(arg, -1) {
			if !slices.ContainsFunc(c.Env, func(e v1.EnvVar) bool { return e.Name == m[1] }) {
				t.Errorf("%s: the container has no variable %s", arg, m[1])
			}
		}
	}
}

// checkProbes sees that the probes ask a named port of the container, for a path that the daemon serves.
func checkProbes(t *testing.T, daemon string, c *v1.Container) {
	t.Helper()
	if c.StartupProbe == nil || c.LivenessProbe == nil {
		t.Error("without a startup and a liveness probe a daemon that hangs stays")
	}
	for _, p := range []*v1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p == nil {
			continue
		}
		if p.HTTPGet == nil {
			t.Fatalf("%v asks nothing over HTTP", p.ProbeHandler)
		}
		if !slices.ContainsFunc(c.Ports, func(port v1.ContainerPort) bool { return port.Name == p.HTTPGet.Port.StrVal }) {
			t.Errorf("the probe's port %s is none of the container's", p.HTTPGet.Port.String())
		}
		// etcd puts its paths together at run time.
		if daemon != "etcd" && !sourceOf(t, daemon).literals[p.HTTPGet.Path] {
			t.Errorf("%s serves no %s", daemon, p.HTTPGet.Path)
		}
	}
}

func TestAddons(t *testing.T) {
	for _, path := range glob(t, "addons/*.yaml", 1) {
		if len(objects(t, path)) == 0 {
			t.Errorf("%s holds nothing", path)
		}
	}
}

func TestCoreDNSHangsTogether(t *testing.T) {
	var (
		account    *v1.ServiceAccount
		role       *rbacv1.ClusterRole
		binding    *rbacv1.ClusterRoleBinding
		config     *v1.ConfigMap
		deployment *appsv1.Deployment
		service    *v1.Service
	)
	for _, o := range objects(t, "addons/coredns.yaml") {
		switch o := o.(type) {
		case *v1.ServiceAccount:
			account = o
		case *rbacv1.ClusterRole:
			role = o
		case *rbacv1.ClusterRoleBinding:
			binding = o
		case *v1.ConfigMap:
			config = o
		case *appsv1.Deployment:
			deployment = o
		case *v1.Service:
			service = o
		default:
			t.Errorf("%T: what is it for?", o)
		}
	}
	if account == nil || role == nil || binding == nil || config == nil || deployment == nil || service == nil {
		t.Fatal("an object is missing")
	}
	pod := deployment.Spec.Template
	same := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	same("the pods' account", pod.Spec.ServiceAccountName, account.Name)
	same("the binding's role", binding.RoleRef.Name, role.Name)
	same("the binding's subjects", binding.Subjects, []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}})
	same("the deployment's selector", deployment.Spec.Selector.MatchLabels, pod.Labels)
	same("the service's selector", service.Spec.Selector, pod.Labels)
	same("the service's address", service.Spec.ClusterIP, "10.96.0.10")
	same("the pods' config", pod.Spec.Volumes[0].ConfigMap.Name, config.Name)
	for _, p := range service.Spec.Ports {
		if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(c v1.ContainerPort) bool {
			return c.Name == p.TargetPort.StrVal && c.Protocol == p.Protocol && c.ContainerPort == p.Port
		}) {
			t.Errorf("the service's port %s leads to none of the container's", p.Name)
		}
	}
}

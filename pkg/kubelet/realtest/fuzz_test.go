package realtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

const (
	// fuzzVar is for how long bad luck lasts, as a duration; SEXTANT_FUZZ_SEED repeats what came of an earlier one.
	fuzzVar, seedVar = "SEXTANT_FUZZ", "SEXTANT_FUZZ_SEED"
	roundTime        = 20 * time.Second
	// otherImage is the same image by another name.
	otherImage = "registry.sextant.local/busybox:2"
	// crowd is how many random pods there are at most.
	crowd = 14
)

// TestWFuzz lives through bad luck in rounds: pods come, change and go; processes, the runtime and the kubelet are killed without a
// word. A witness complains of what must never be, a steady pod must not feel any of it, and after each round nothing may be left.
func TestWFuzz(t *testing.T) {
	long, seed := roundTime, uint64(1) // `make test` has the same bad luck each time, `make fuzz-pods` another
	if text := os.Getenv(fuzzVar); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		long, seed = d, uint64(time.Now().UnixNano())
	}
	if text := os.Getenv(seedVar); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.stopKubelet(); err != nil {
		t.Fatal(err)
	}
	node.ctr(t, "images", "tag", "--force", image, otherImage)
	mad := &madness{kubelet: node.spawnKubelet(t)}
	defer func() {
		_ = mad.kubelet.Process.Signal(syscall.SIGTERM)
		_ = mad.kubelet.Wait()
		if err := node.startKubelet(nil); err != nil {
			t.Fatal(err)
		}
	}()
	for begin := time.Now(); time.Since(begin) < long && !t.Failed(); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { mad.round(t, chance{rand.New(rand.NewPCG(seed, 0))}) })
	}
	t.Log(mad.did)
}

// madness is what is done to the machine.
type madness struct {
	kubelet *exec.Cmd
	did     struct{ pods, kills, kubelets, runtimes, changes int }

	space   *space
	witness *witness
	names   []string
	late    bool
}

func (m *madness) round(t *testing.T, c chance) {
	s := newSpace(t)
	m.space, m.witness, m.names, m.late = s, newWitness(t, s.name), nil, false
	s.configMap("kube-root-ca.crt", map[string]string{"ca.crt": "x"})
	s.configMap("cm", map[string]string{"a": "1"})
	s.secret("sec", map[string]string{"s": "x"})
	steady := s.create("steady", `{containers: [{name: c, command: [sh, -c, "echo up; sleep 600"], volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, configMap: {name: cm}}]}`)
	s.running("steady")
	kubelets, runtimes := 0, 0
	for begin := time.Now(); time.Since(begin) < roundTime && !t.Failed(); time.Sleep(60 * time.Millisecond) {
		alive := m.witness.look()
		delete(alive, string(steady.UID)+"/c")
		switch n := c.IntN(40); {
		case n < 12 && len(m.names) < crowd:
			m.create(c)
		case n < 18 && len(m.names) > 0:
			m.delete(c)
		case n < 24:
			m.kill(c, alive)
		case n < 30 && len(m.names) > 0:
			m.change(c)
		case n < 31:
			m.killSandbox(c, steady)
		case n < 32:
			m.arrive()
		case n < 34 && kubelets < 3:
			kubelets++
			m.killKubelet(t, c)
		case n < 35 && runtimes < 2:
			runtimes++
			m.did.runtimes++
			node.killRuntime(t)
		default:
			m.witness.sandboxes()
		}
	}
	m.arrive()
	m.settle(t)
	if cs := container(s.get("steady"), "c"); cs.RestartCount != 0 || cs.State.Running == nil {
		t.Errorf("the steady pod felt something: %+v", cs)
	}
	if t.Failed() {
		return
	}
	grace := int64(1)
	if err := node.admin.CoreV1().Pods(s.name).DeleteCollection(context.Background(), metav1.DeleteOptions{GracePeriodSeconds: &grace}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	err := within(patience, func() error {
		m.witness.look()
		if err := m.witness.remains(); err != nil {
			return err
		}
		return node.left()
	})
	if err != nil {
		t.Error(err)
	}
}

func (m *madness) create(c chance) {
	s := m.space
	name := fmt.Sprintf("p%d", c.IntN(1<<30))
	p := c.pod(s.name, name)
	if _, err := node.admin.CoreV1().Pods(s.name).Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		raw, _ := yaml.Marshal(p.Spec)
		s.t.Errorf("the API refuses a pod that was to be valid: %v\n%s", err, raw)
		return
	}
	m.did.pods++
	m.names = append(m.names, name)
}

func (m *madness) delete(c chance) {
	i := c.IntN(len(m.names))
	o := metav1.DeleteOptions{}
	pods := node.admin.CoreV1().Pods(m.space.name)
	switch c.IntN(5) {
	case 0:
		o.GracePeriodSeconds = ptr(int64(0))
	case 1:
		o.GracePeriodSeconds = ptr(int64(1))
	}
	p, err := pods.Get(context.Background(), m.names[i], metav1.GetOptions{})
	if grace := o.GracePeriodSeconds; err == nil && (grace != nil && *grace == 0 || grace == nil && *p.Spec.TerminationGracePeriodSeconds == 0) {
		m.witness.forces(string(p.UID))
	}
	_ = pods.Delete(context.Background(), m.names[i], o)
	m.names = slices.Delete(m.names, i, i+1)
}

// kill ends one container's processes.
func (m *madness) kill(c chance, alive map[string]string) {
	if len(alive) == 0 {
		return
	}
	keys := make([]string, 0, len(alive))
	for k := range alive {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	m.did.kills++
	_ = node.ctrTry("tasks", "kill", "-s", "KILL", alive[keys[c.IntN(len(keys))]])
}

// killSandbox ends what holds a pod's namespaces.
func (m *madness) killSandbox(c chance, but *v1.Pod) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := m.witness.cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{cri.LabelPodNamespace: m.space.name}}})
	if err != nil || len(list.Items) == 0 {
		return
	}
	if s := list.Items[c.IntN(len(list.Items))]; s.GetMetadata().GetUid() != string(but.UID) {
		m.did.kills++
		_ = node.ctrTry("tasks", "kill", "-s", "KILL", s.Id)
	}
}

// change does to a running pod what users do: debug it, resize it, relabel it, give it a deadline, another image, a condition.
func (m *madness) change(c chance) {
	name := m.names[c.IntN(len(m.names))]
	m.did.changes++
	patch := func(body any, sub ...string) {
		raw, err := json.Marshal(body)
		if err != nil {
			m.space.t.Error(err)
		}
		// What a pod's state forbids is refused.
		_, _ = node.admin.CoreV1().Pods(m.space.name).Patch(context.Background(), name, types.StrategicMergePatchType, raw, metav1.PatchOptions{}, sub...)
	}
	type object = map[string]any
	spec := func(spec object) object { return object{"spec": spec} }
	switch c.IntN(6) {
	case 0:
		patch(spec(object{"ephemeralContainers": []object{{"name": fmt.Sprintf("debug%d", c.IntN(1<<20)), "image": image, "targetContainerName": "a",
			"command": []string{"sh", "-c", pick(c, "exit 0", "sleep 600", "exit 3")}}}}), "ephemeralcontainers")
	case 1:
		size := object{"cpu": pick(c, "10m", "20m", "50m", "120m"), "memory": pick(c, "24Mi", "32Mi", "48Mi")}
		patch(spec(object{"containers": []object{{"name": "a", "resources": object{"limits": size, "requests": size}}}}), "resize")
	case 2:
		patch(object{"metadata": object{"labels": object{"fuzz": fmt.Sprint(c.IntN(9))}}})
	case 3:
		patch(spec(object{"activeDeadlineSeconds": 1 + c.IntN(5)}))
	case 4:
		patch(spec(object{"containers": []object{{"name": "a", "image": otherImage}}}))
	case 5:
		patch(object{"status": object{"conditions": []object{{"type": "fuzz/gate", "status": pick(c, "True", "False"), "lastTransitionTime": metav1.Now()}}}}, "status")
	}
}

// arrive makes the configMap some pods wait for.
func (m *madness) arrive() {
	if !m.late {
		m.late = true
		m.space.configMap("late", map[string]string{"a": "1"})
	}
}

func (m *madness) killKubelet(t *testing.T, c chance) {
	t.Helper()
	m.did.kubelets++
	sig := syscall.SIGKILL
	if c.in(4) {
		sig = syscall.SIGTERM
	}
	_ = m.kubelet.Process.Signal(sig)
	_ = m.kubelet.Wait()
	time.Sleep(time.Duration(c.IntN(1500)) * time.Millisecond)
	m.kubelet = node.spawnKubelet(t)
}

// settle waits until every wanted pod runs, has ended, or waits for its next try.
func (m *madness) settle(t *testing.T) {
	for _, name := range m.names {
		// It is asked again and again, for the witness to look meanwhile.
		if err := within(patience, func() error {
			m.witness.look()
			if p := m.space.get(name); !settled(p) {
				return fmt.Errorf("pod %s is not settled: %+v", name, p.Status)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
}

func settled(p *v1.Pod) bool {
	if p.DeletionTimestamp != nil || rank(p.Status.Phase) == 2 {
		return true
	}
	// A debugger waits for as long as what it is to look at does not run.
	for _, cs := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := cs.State.Waiting; w != nil && (w.Reason == "ContainerCreating" || w.Reason == "CreateContainerConfigError" || w.Reason == "CreateContainerError") {
			return false
		}
	}
	return p.Status.Phase != "" && p.Status.StartTime != nil
}

// spawnKubelet runs a kubelet in a process of its own, so that it can be killed.
func (m *machine) spawnKubelet(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := again("kubelet")
	cmd.Stdout, cmd.Stderr = m.log, m.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// killRuntime ends containerd without a word and starts it again.
func (m *machine) killRuntime(t *testing.T) {
	t.Helper()
	m.killed = true
	for _, d := range m.daemon {
		if filepath.Base(d.Path) == "containerd" {
			if err := d.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = d.Wait()
		}
	}
	m.daemon = slices.DeleteFunc(m.daemon, func(d *exec.Cmd) bool { return d.ProcessState != nil })
	if err := m.runtimeUp(); err != nil {
		t.Fatal(err)
	}
}

// ctrTry runs the runtime's own client, which may fail.
func (m *machine) ctrTry(args ...string) error {
	out, err := exec.Command(m.path("run/ctr"), append([]string{"-a", m.path("run/containerd.sock"), "-n", "k8s.io"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

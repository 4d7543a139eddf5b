//go:build e2e

// Package conformance holds a cluster to the behaviours that the published conformance suite asks for, each named by its
// row there. A row is a behaviour: a name and one function, which drives a namespace of its own through client-go and
// fails by panicking (must, w.until, w.Fatalf).
//
//	behaviours (one list a file) -> TestConformance -> a namespace each, eight at a time -> what failed, and its events
//
// Rows that look at time at length run with -slow only (make e2e-all); rows that change nodes run alone, after the others.
package conformance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	slowToo = flag.Bool("slow", false, "run the rows that take minutes too")
	config  *rest.Config
	api     kubernetes.Interface
	dyn     dynamic.Interface
	ctx     = context.Background()
	counter atomic.Int64
	image   = "registry.sextant.local/busybox:1"
	coredns = "registry.sextant.local/coredns:1.15.0"
	root    string
	memory  string // where kubectl keeps what it discovered, of this cluster alone
)

// behaviour is a row.
type behaviour struct {
	name string
	test func(w *world)
	// slow rows take over half a minute; serial ones change what others stand on.
	slow, serial bool
}

// behaviours are the rows by their group.
func behaviours() map[string][]behaviour {
	return map[string][]behaviour{
		"sig-node":       slices.Concat(nodePods, nodeProbes, nodeContainers, nodeHooks, nodeSecurity, nodeEnvironment, nodeResize, nodeKinds, nodeChurn, nodeRest, nodeVolumes),
		"sig-storage":    slices.Concat(storageFiles, storageDirs, storageDownward, storageKinds),
		"sig-scheduling": scheduling, "sig-cli": clients, "sig-instrumentation": instrumentation, "sig-auth": slices.Concat(accounts, rights), "sig-api-machinery": slices.Concat(machinery, machineryCustom, machineryPolicy, machineryWatch, machineryDiscovery, machineryShapes, everyKind),
		"sig-apps":    slices.Concat(apps, appsJobs, appsRest),
		"sig-network": slices.Concat(networkServices, networkNames, networkRest),
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	if err := connect(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(memory)
	os.Exit(code)
}

func connect() error {
	parallel := true
	flag.Visit(func(f *flag.Flag) { parallel = parallel && f.Name != "test.parallel" })
	if parallel {
		if err := flag.Set("test.parallel", "8"); err != nil {
			return err
		}
	}
	var err error
	if root, err = filepath.Abs("../../.."); err != nil {
		return err
	}
	if config, err = clientcmd.BuildConfigFromFlags("", filepath.Join(root, "_out/admin.kubeconfig")); err != nil {
		return err
	}
	if memory, err = os.MkdirTemp("", "conformance-kubectl-"); err != nil {
		return err
	}
	config.QPS = -1
	if api, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	dyn, err = dynamic.NewForConfig(config)
	return err
}

func TestConformance(t *testing.T) {
	groups := behaviours()
	for _, serial := range []bool{false, true} {
		t.Run(map[bool]string{false: "beside", true: "alone"}[serial], func(t *testing.T) {
			for group, rows := range groups {
				for _, b := range rows {
					if b.serial != serial || b.slow && !*slowToo {
						continue
					}
					t.Run(group+" "+b.name, func(t *testing.T) {
						if !serial {
							t.Parallel()
						}
						run(t, b)
					})
				}
			}
		})
	}
}

// world is what a row is given.
type world struct {
	*testing.T
	ns string
}

// failure is what must panics with.
type failure struct{ text string }

// run gives the row a namespace, and takes it back.
func run(t *testing.T, b behaviour) {
	w := &world{T: t, ns: fmt.Sprintf("conf-%d", counter.Add(1))}
	defer func() {
		if why := recover(); why != nil {
			f, ok := why.(failure)
			if !ok {
				panic(why)
			}
			t.Error(f.text)
		}
		if t.Failed() {
			t.Log(w.account())
		}
		now := int64(0)
		_ = api.CoreV1().Pods(w.ns).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{})
		if err := api.CoreV1().Namespaces().Delete(ctx, w.ns, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}()
	w.namespace(w.ns)
	b.test(w)
}

// namespace makes one that pods can be created in.
func (w *world) namespace(name string) {
	w.Helper()
	must(api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))
	w.until(30*time.Second, "default service account", func() error {
		_, err := api.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// account tells what stands in the namespace.
func (w *world) account() string {
	var b strings.Builder
	pods, err := api.CoreV1().Pods(w.ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, p := range pods.Items {
		fmt.Fprintf(&b, "pod %s on %s: %s %s %s\n", p.Name, p.Spec.NodeName, p.Status.Phase, p.Status.Reason, p.Status.Message)
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			fmt.Fprintf(&b, "  %s ready=%v restarts=%d state=%v last=%v\n", s.Name, s.Ready, s.RestartCount, s.State.String(), s.LastTerminationState.String())
			log, _ := api.CoreV1().Pods(w.ns).GetLogs(p.Name, &corev1.PodLogOptions{Container: s.Name}).DoRaw(ctx)
			fmt.Fprintf(&b, "  log: %.2000s\n", log)
		}
	}
	events, err := api.CoreV1().Events(w.ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, e := range events.Items {
		fmt.Fprintf(&b, "event %s %s/%s %s: %s\n", e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
	return b.String()
}

// at answers the place in a test's own file that called what called at.
func at() string {
	for skip := 2; skip < 12; skip++ {
		_, file, line, ok := runtime.Caller(skip)
		if ok && filepath.Base(file) != "suite_test.go" && filepath.Base(file) != "pod_test.go" {
			return fmt.Sprintf("%s:%d", filepath.Base(file), line)
		}
	}
	return "?"
}

// must answers the value; an error ends the row.
func must[T any](v T, err error) T {
	if err != nil {
		panic(failure{fmt.Sprintf("%s: %v", at(), err)})
	}
	return v
}

// done ends the row on an error.
func done(err error) {
	if err != nil {
		panic(failure{fmt.Sprintf("%s: %v", at(), err)})
	}
}

// fatal ends the row.
func fatal(format string, args ...any) {
	panic(failure{at() + ": " + fmt.Sprintf(format, args...)})
}

// same ends the row unless two values are equal.
func same[T comparable](what string, got, want T) {
	if got != want {
		panic(failure{fmt.Sprintf("%s: %s is %v, want %v", at(), what, got, want)})
	}
}

// refused ends the row unless there is an error that the predicate knows.
func refused(err error, is func(error) bool) {
	if err == nil || !is(err) {
		panic(failure{fmt.Sprintf("%s: refused otherwise than it should be: %v", at(), err)})
	}
}

// until ends the row unless the condition holds before the limit.
func (w *world) until(limit time.Duration, what string, holds func() error) {
	w.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			panic(failure{fmt.Sprintf("%s: %s: not within %s: %v", at(), what, limit, err)})
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// holds ends the row if the condition stops holding before the time is over.
func (w *world) holds(span time.Duration, what string, holds func() error) {
	w.Helper()
	for deadline := time.Now().Add(span); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if err := holds(); err != nil {
			panic(failure{fmt.Sprintf("%s: %s: %v", at(), what, err)})
		}
	}
}

// differs is an error unless two values are equal, for conditions.
func differs[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, want %v", what, got, want)
	}
	return nil
}

var errGone = errors.New("gone")

func ptr[T any](v T) *T { return &v }

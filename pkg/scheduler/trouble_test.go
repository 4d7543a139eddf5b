package scheduler

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// panics makes whatever plugin looks at a node's pods panic on one class: a pod that stands without a class.
func panics(s *Scheduler, node string) (heal func()) {
	p := rules.NewPod(aPod("broken", "1", 0))
	s.table.SetPod(p, node)
	class := p.Class
	p.Class = nil
	return func() { p.Class = class }
}

// A plugin that panics on a pod costs that pod a back-off: it is told why, others are decided, and nothing of it is left in the table.
func TestAPluginThatPanics(t *testing.T) {
	s, client, events := shell(t)
	bound := bindings(client)
	s.nodeSeen("a", aNode("a", "2"))
	heal := panics(s, "a")
	see(t, s, aPod("evicts", "2", 9)) // who looks for victims, looks at the classes of pods
	if !s.one(context.Background()) {
		t.Fatal("no pod came out of the queue")
	}
	s.group.Wait()
	if last := s.explained["default/evicts"]; !strings.HasPrefix(last.Message, "a plugin panicked: ") || s.queue.delay.Len() != 1 {
		t.Fatalf("%q, %d in back-off", last.Message, s.queue.delay.Len())
	}
	if event := <-events.Events; !strings.Contains(event, "Warning FailedScheduling a plugin panicked") {
		t.Errorf("the event is %q", event)
	}
	see(t, s, aPod("fits", "1", 20)) // decided first: it has more priority
	s.one(context.Background())
	s.group.Wait()
	if *bound != 1 {
		t.Errorf("bound %d; want the pod that fits", *bound)
	}
	heal()
	time.Sleep(2 * time.Millisecond)
	if !s.one(context.Background()) {
		t.Error("the pod was not tried again")
	}
	s.group.Wait()
}

// A binding that conflicts, because another scheduler was faster, is undone; the pod stands where the other put it, and is not tried again.
func TestABindingThatConflicts(t *testing.T) {
	s, client, _ := shell(t)
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(v1.Resource("pods/binding"), "p", nil)
	})
	s.nodeSeen("a", aNode("a", "4"))
	p := aPod("p", "1", 0)
	see(t, s, p)
	s.one(context.Background())
	s.group.Wait()
	if _, pods := s.table.Len(); pods != 0 || len(s.assumed) != 0 || s.queue.delay.Len() != 1 {
		t.Fatalf("%d pods stand, %d assumed, %d in back-off", pods, len(s.assumed), s.queue.delay.Len())
	}
	s.nodeSeen("b", aNode("b", "4"))
	p.Spec.NodeName = "b"
	see(t, s, p)
	time.Sleep(2 * time.Millisecond)
	if _, node := s.table.Pod("default/p"); node != "b" || s.one(context.Background()) {
		t.Errorf("it stands on %q, and was tried again", node)
	}
}

// A pod that changes while it waits is decided as it is then; so is one that changes while it is being decided.
func TestAPodThatChanges(t *testing.T) {
	s, client, _ := shell(t)
	bound := bindings(client)
	s.nodeSeen("a", aNode("a", "4"))
	n := aNode("b", "4")
	n.Labels = map[string]string{"disk": "ssd"}
	s.nodeSeen("b", n)
	p := aPod("p", "64", 0)
	see(t, s, p)
	s.one(context.Background())
	s.group.Wait()
	p = p.DeepCopy()
	p.Spec.Containers[0].Resources.Requests["cpu"] = *aNode("", "1").Status.Allocatable.Cpu()
	p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	see(t, s, p)
	time.Sleep(2 * time.Millisecond)
	s.one(context.Background())
	s.group.Wait()
	if _, node := s.table.Pod("default/p"); node != "b" || *bound != 1 {
		t.Errorf("it stands on %q; want b", node)
	}

	// While it is decided: popped, changed, and found to fit nowhere as it was.
	q := aPod("q", "64", 0)
	see(t, s, q)
	s.mu.Lock()
	w := s.queue.pop(time.Now())
	s.mu.Unlock()
	q = q.DeepCopy()
	q.Labels = map[string]string{"now": "other"}
	see(t, s, q)
	s.mu.Lock()
	s.queue.park(w, []string{"NodeResourcesFit"}, time.Now(), s.helps)
	if w.heap == nil || w.pod.Class.ID() != rules.NewPod(q).Class.ID() {
		t.Error("a pod that changed while it was decided waits as if it had not")
	}
	s.mu.Unlock()

	// Deleted and made again under its name while its binding flies: the binding carries the first one's UID, and the second waits.
	see(t, s, aPod("r", "1", 9))
	s.slots = make(chan struct{}) // hold the binding back
	go s.one(context.Background())
	eventually(t, "the decision", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.assumed) == 2
	})
	s.podGone("default/r")
	again := aPod("r", "1", 9)
	again.UID = "uid-second"
	see(t, s, again)
	uids := make(chan string, 2)
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		uids <- string(a.(clienttesting.CreateAction).GetObject().(*v1.Binding).UID)
		return true, nil, apierrors.NewConflict(v1.Resource("pods/binding"), "r", nil)
	})
	<-s.slots
	uid := <-uids
	s.slots <- struct{}{} // which the binding gives back
	s.group.Wait()
	if w := s.queue.find("default/r"); uid != "uid-r" || w == nil || w.pod.UID != "uid-second" || w.heap == nil {
		t.Errorf("bound with %s; waiting: %v", uid, w)
	}
}

// An extender that answers nonsense, an error, or that it bound a pod which it did not bind: the pod is tried again, and told why.
func TestAnExtenderThatLies(t *testing.T) {
	for name, c := range map[string]struct {
		answer, want string
		bind         bool
	}{
		"nonsense": {answer: `["what"`, want: "extender http"},
		"an error": {answer: `{"Error": "out of order"}`, want: "out of order"},
		"bound":    {bind: true, answer: `{}`, want: "says that it bound the pod to"},
	} {
		t.Run(name, func(t *testing.T) {
			s := extended(t, func(e *configv1.Extender) {
				if c.bind {
					e.FilterVerb, e.BindVerb = "", "bind"
				}
			}, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, c.answer) })
			s.core = fake.NewClientset(aPod("p", "1", 0)).CoreV1()
			s.one(context.Background())
			s.group.Wait()
			last := s.explained["default/p"]
			if p, _ := s.table.Pod("default/p"); p != nil || len(s.assumed) != 0 || s.queue.delay.Len() != 1 || !strings.Contains(last.Message, c.want) {
				t.Errorf("placed %v, %d assumed, %d in back-off: %q", p != nil, len(s.assumed), s.queue.delay.Len(), last.Message)
			}
		})
	}
}

// An extender is asked whom to evict: it may leave nodes out and victims standing.
func TestAnExtenderThatPreempts(t *testing.T) {
	for _, whole := range []bool{false, true} {
		s := extended(t, func(e *configv1.Extender) { e.FilterVerb, e.PreemptVerb, e.NodeCacheCapable = "", "preempt", !whole }, func(w http.ResponseWriter, r *http.Request) {
			var args extenderv1.ExtenderPreemptionArgs
			if err := json.NewDecoder(r.Body).Decode(&args); err != nil || r.URL.Path != "/preempt" || args.Pod.Name != "p" {
				t.Errorf("asked %s with %v, %v", r.URL.Path, args.Pod, err)
			}
			if len(args.NodeNameToVictims)+len(args.NodeNameToMetaVictims) != 3 || whole != (len(args.NodeNameToVictims) == 3) {
				t.Errorf("whole %v: asked with %v and %v", whole, args.NodeNameToVictims, args.NodeNameToMetaVictims)
			}
			if whole && (args.NodeNameToVictims["c"].Pods[0].Name != "low-c" || args.NodeNameToVictims["c"].Pods[0].Spec.NodeName != "c") {
				t.Errorf("asked about %v", args.NodeNameToVictims["c"].Pods[0])
			}
			reply(t, w, extenderv1.ExtenderPreemptionResult{NodeNameToMetaVictims: map[string]*extenderv1.MetaVictims{
				"c": {Pods: []*extenderv1.MetaPod{{UID: "uid-low-c"}, {UID: "uid-somebody"}}}, "z": {Pods: []*extenderv1.MetaPod{{UID: "uid-low-a"}}}}})
		})
		for _, node := range []string{"a", "b", "c"} {
			low := aPod("low-"+node, "4", -1)
			low.Spec.NodeName = node
			see(t, s, low)
		}
		s.one(context.Background())
		s.group.Wait()
		if last := s.explained["default/p"]; last.Nominated != "c" {
			t.Errorf("whole %v: nominated %q: %s", whole, last.Nominated, last.Message)
		}
	}
}

package scheduler

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sextant-k8s/sextant/pkg/scheduler/rules"
)

// explained keeps the last decision about each waiting pod.
type explained map[string]decision

// decision is what was decided about a pod that has no node, and when.
type decision struct {
	When      time.Time `json:"when"`
	Attempts  int       `json:"attempts"`
	Message   string    `json:"message"`
	Rejectors []string  `json:"rejectors,omitempty"`
	Nominated string    `json:"nominated,omitempty"`
}

func (e explained) put(w *waiting, p rules.Plan, when time.Time) {
	e[w.pod.Key] = decision{when, w.attempts, p.Message, p.Rejectors, p.Nominated}
}

func (e explained) drop(key string) { delete(e, key) }

// Explanation is the answer of the port to "why": how the pod stands in the queue, what was decided last, and what every node says now.
type Explanation struct {
	Pod     string             `json:"pod"`
	State   string             `json:"state"` // of the queue, or bound
	Node    string             `json:"node,omitempty"`
	Since   *time.Time         `json:"since,omitempty"`
	NextTry *time.Time         `json:"nextTry,omitempty"`
	Last    *decision          `json:"last,omitempty"`
	Now     *rules.Explanation `json:"now,omitempty"`
}

// explainPod answers GET /explain/namespaces/{namespace}/pods/{name}.
func (s *Scheduler) explainPod(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("namespace") + "/" + r.PathValue("name")
	out, err := s.explain(key)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case out == nil:
		http.Error(w, fmt.Sprintf("pod %s waits for no node of this scheduler", key), http.StatusNotFound)
	default:
		answer(w, out)
	}
}

func (s *Scheduler) explain(key string) (*Explanation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &Explanation{Pod: key}
	if p, node := s.table.Pod(key); p != nil {
		out.State, out.Node = "bound", node
		return out, nil
	}
	w := s.queue.find(key)
	if w == nil {
		return nil, nil
	}
	out.State, out.Since = s.queue.part(w), &w.added
	if w.ready.After(time.Now()) {
		out.NextTry = &w.ready
	}
	if last, ok := s.explained[key]; ok {
		out.Last = &last
	}
	if reason, message := rules.Gated(w.raw); reason != "" {
		out.Last = &decision{When: w.added, Message: reason + ": " + message}
	}
	now, err := explain(rules.Snapshot{Table: s.table, Pod: w.pod, Profile: s.config.profiles[w.raw.Spec.SchedulerName]})
	if err != nil {
		return nil, err
	}
	out.Now = &now
	return out, nil
}

func explain(s rules.Snapshot) (e rules.Explanation, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Table.Forget()
			err = fmt.Errorf("a plugin panicked: %v", p)
		}
	}()
	return rules.Explain(s)
}

// mostPod bounds what a caller may send, in bytes.
const mostPod = 3 << 20

// whatIf answers POST /explain/what-if: a pod that does not exist is scheduled against the table as it is, and nothing changes.
func (s *Scheduler) whatIf(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostPod))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &v1.Pod{})
	p, ok := obj.(*v1.Pod)
	if err != nil || !ok {
		http.Error(w, fmt.Sprintf("want a Pod of v1: %v", err), http.StatusBadRequest)
		return
	}
	if p.Namespace == "" {
		p.Namespace = metav1.NamespaceDefault
	}
	if p.Name == "" {
		p.Name = "what-if"
	}
	if p.Spec.SchedulerName == "" {
		p.Spec.SchedulerName = v1.DefaultSchedulerName
	}
	p.UID = "what-if"
	if p.Spec.Priority == nil && p.Spec.PriorityClassName != "" {
		http.Error(w, "give spec.priority, or the answer of a dry run: priorityClassName is read by admission", http.StatusBadRequest)
		return
	}
	requestLimits(p)
	profile := s.config.profiles[p.Spec.SchedulerName]
	if profile == nil {
		http.Error(w, fmt.Sprintf("this scheduler has no profile %q", p.Spec.SchedulerName), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	now, err := explain(rules.Snapshot{Table: s.table, Pod: rules.NewWaiting(p), Profile: profile})
	s.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, &Explanation{Pod: p.Namespace + "/" + p.Name, State: "what if", Now: &now})
}

// requestLimits does what defaulting does: a limit without a request is one.
func requestLimits(p *v1.Pod) {
	for _, containers := range [][]v1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range containers {
			r := &containers[i].Resources
			for name, q := range r.Limits {
				if _, ok := r.Requests[name]; ok {
					continue
				}
				if r.Requests == nil {
					r.Requests = v1.ResourceList{}
				}
				r.Requests[name] = q
			}
		}
	}
}

func answer(w http.ResponseWriter, o any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o) // the caller went away, otherwise
}

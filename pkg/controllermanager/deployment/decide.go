package deployment

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The annotations in which a deployment keeps its history, as every client knows them.
const (
	revisionNote  = "deployment.kubernetes.io/revision"
	historyNote   = "deployment.kubernetes.io/revision-history"
	desiredNote   = "deployment.kubernetes.io/desired-replicas"
	maxNote       = "deployment.kubernetes.io/max-replicas"
	lastApplied   = corev1.LastAppliedConfigAnnotation
	rollbackNote  = "deprecated.deployment.rollback.to"
	templateLabel = appsv1.DefaultDeploymentUniqueLabelKey
)

// Snapshot is what a decision is made on.
type Snapshot struct {
	Deployment *appsv1.Deployment
	Sets       []*appsv1.ReplicaSet // those it controls
	// Hash names the template; it is the suffix of a new set's name.
	Hash string
	// Pods is the number of pods that old sets still have, terminating ones included: Recreate waits for none.
	OldPods int
	Now     time.Time
}

// Scale is one set's change of replicas.
type Scale struct {
	Set *appsv1.ReplicaSet // as it is to be
	Up  bool
	By  int32
}

// Plan is what is to be done, in this order.
type Plan struct {
	Create   *appsv1.ReplicaSet // the set of the current template
	Touch    []*appsv1.ReplicaSet
	Scale    []Scale
	Remove   []*appsv1.ReplicaSet
	Revision string // to be written on the deployment, "" if it stands there
	Status   *appsv1.DeploymentStatus
	Again    time.Duration
}

// String shows the plan as logs and tests do.
func (p Plan) String() string {
	var b strings.Builder
	if p.Create != nil {
		fmt.Fprintf(&b, "create %s with %d\n", p.Create.Name, *p.Create.Spec.Replicas)
	}
	for _, s := range p.Touch {
		fmt.Fprintf(&b, "note on %s\n", s.Name)
	}
	for _, s := range p.Scale {
		fmt.Fprintf(&b, "scale %s to %d\n", s.Set.Name, *s.Set.Spec.Replicas)
	}
	for _, s := range p.Remove {
		fmt.Fprintf(&b, "remove %s\n", s.Name)
	}
	if p.Revision != "" {
		fmt.Fprintf(&b, "revision %s\n", p.Revision)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status replicas=%d updated=%d ready=%d available=%d unavailable=%d\n", s.Replicas, s.UpdatedReplicas, s.ReadyReplicas, s.AvailableReplicas, s.UnavailableReplicas)
		for _, c := range s.Conditions {
			fmt.Fprintf(&b, "  %s=%s %s\n", c.Type, c.Status, c.Reason)
		}
	}
	return b.String()
}

// rollout is a decision being made.
type rollout struct {
	Snapshot
	plan Plan
	d    *appsv1.Deployment
	now  *appsv1.ReplicaSet // of the current template, nil before it is made
	old  []*appsv1.ReplicaSet
	// what an update may do to the number of pods
	surge, unavailable int32
}

// decide moves a deployment's sets one step towards its template and number.
func decide(s Snapshot) Plan {
	r := &rollout{Snapshot: s, d: s.Deployment}
	r.sort()
	r.bounds()
	switch {
	case r.d.DeletionTimestamp != nil:
	case r.d.Spec.Paused || r.scaled():
		r.resize()
		r.history()
	case r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		r.recreate()
	default:
		r.roll()
	}
	r.status()
	return r.plan
}

// sort finds the set of the current template; the oldest, if there are several.
func (r *rollout) sort() {
	sets := slices.Clone(r.Sets)
	slices.SortStableFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, s := range sets {
		if r.now == nil && sameTemplate(&s.Spec.Template, &r.d.Spec.Template) {
			r.now = s.DeepCopy()
			continue
		}
		r.old = append(r.old, s.DeepCopy())
	}
}

// sameTemplate compares templates but for the label that names them.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	delete(x.Labels, templateLabel)
	delete(y.Labels, templateLabel)
	return equality.Semantic.DeepEqual(x, y)
}

func (r *rollout) want() int32 {
	if r.d.Spec.Replicas == nil {
		return 1
	}
	return *r.d.Spec.Replicas
}

// bounds resolves surge and unavailability; both zero would never move, so one pod may then be missing.
func (r *rollout) bounds() {
	u := r.d.Spec.Strategy.RollingUpdate
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || u == nil {
		return
	}
	surge, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxSurge, intstr.FromInt32(0)), int(r.want()), true)
	if err != nil {
		surge = 0
	}
	unavailable, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxUnavailable, intstr.FromInt32(0)), int(r.want()), false)
	if err != nil {
		unavailable = 0
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	r.surge, r.unavailable = int32(surge), min(int32(unavailable), r.want())
}

func replicas(s *appsv1.ReplicaSet) int32 {
	if s.Spec.Replicas == nil {
		return 1
	}
	return *s.Spec.Replicas
}

func sum(sets []*appsv1.ReplicaSet, f func(*appsv1.ReplicaSet) int32) int32 {
	n := int32(0)
	for _, s := range sets {
		if s != nil {
			n += f(s)
		}
	}
	return n
}

// all answers every set in a list of the caller's own.
func (r *rollout) all() []*appsv1.ReplicaSet {
	all := slices.Clone(r.old)
	if r.now != nil {
		all = append(all, r.now)
	}
	return all
}

// scaled tells that the number was changed since the sets were last sized: they are resized in proportion then.
func (r *rollout) scaled() bool {
	return slices.ContainsFunc(r.all(), func(s *appsv1.ReplicaSet) bool {
		n, err := strconv.Atoi(s.Annotations[desiredNote])
		return replicas(s) > 0 && err == nil && int32(n) != r.want()
	})
}

// ensure makes the current template's set, or brings its revision and annotations up to date.
func (r *rollout) ensure() {
	revision := int64(0)
	for _, s := range r.old {
		revision = max(revision, number(s.Annotations[revisionNote]))
	}
	text := strconv.FormatInt(revision+1, 10)
	if r.now != nil {
		if r.annotate(r.now, text) {
			r.plan.Touch = append(r.plan.Touch, r.now)
		}
	} else {
		r.now = r.newSet()
		r.annotate(r.now, text)
		r.plan.Create = r.now
	}
	if now := r.now.Annotations[revisionNote]; r.d.Annotations[revisionNote] != now {
		r.plan.Revision = now
	}
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// newSet is the set of the current template, with as many pods as the strategy allows at once.
func (r *rollout) newSet() *appsv1.ReplicaSet {
	t := r.d.Spec.Template.DeepCopy()
	t.Labels = with(t.Labels, r.Hash)
	sel := r.d.Spec.Selector.DeepCopy()
	sel.MatchLabels = with(sel.MatchLabels, r.Hash)
	s := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.d.Name + "-" + r.Hash, Namespace: r.d.Namespace, Labels: t.Labels, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "Deployment", Name: r.d.Name, UID: r.d.UID, Controller: new(true), BlockOwnerDeletion: new(true),
			}},
		},
		Spec: appsv1.ReplicaSetSpec{MinReadySeconds: r.d.Spec.MinReadySeconds, Selector: sel, Template: *t, Replicas: new(int32(0))},
	}
	for k, v := range r.d.Annotations {
		if !slices.Contains(ownNotes, k) {
			s.Annotations[k] = v
		}
	}
	n := r.want()
	if r.d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		n = max(0, min(n, r.want()+r.surge-sum(r.old, replicas)))
	}
	s.Spec.Replicas = &n
	r.size(s)
	return s
}

// ownNotes are annotations that say something about the deployment, not about its template.
var ownNotes = []string{lastApplied, revisionNote, historyNote, desiredNote, maxNote, rollbackNote}

func with(m map[string]string, hash string) map[string]string {
	out := map[string]string{templateLabel: hash}
	for k, v := range m {
		out[k] = v
	}
	out[templateLabel] = hash
	return out
}

// annotate brings a set's annotations and revision up to date; it tells whether anything changed.
func (r *rollout) annotate(s *appsv1.ReplicaSet, revision string) bool {
	changed := false
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	for k, v := range r.d.Annotations {
		if !slices.Contains(ownNotes, k) && s.Annotations[k] != v {
			s.Annotations[k], changed = v, true
		}
	}
	if was := s.Annotations[revisionNote]; number(was) < number(revision) {
		if was != "" {
			past := s.Annotations[historyNote]
			if past != "" {
				past += ","
			}
			s.Annotations[historyNote] = past + was
		}
		s.Annotations[revisionNote], changed = revision, true
	}
	if s.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		s.Spec.MinReadySeconds, changed = r.d.Spec.MinReadySeconds, true
	}
	return changed
}

// size notes on a set for which number of replicas it was sized.
func (r *rollout) size(s *appsv1.ReplicaSet) bool {
	want, most := strconv.Itoa(int(r.want())), strconv.Itoa(int(r.want()+r.surge))
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	if s.Annotations[desiredNote] == want && s.Annotations[maxNote] == most {
		return false
	}
	s.Annotations[desiredNote], s.Annotations[maxNote] = want, most
	return true
}

// to plans a set's new number.
func (r *rollout) to(s *appsv1.ReplicaSet, n int32) {
	was := replicas(s)
	noted := r.size(s)
	s.Spec.Replicas = &n
	if s == r.plan.Create {
		return
	}
	switch {
	case n != was:
		by := n - was
		// One write carries both: a second one would be of an old version.
		r.plan.Touch = slices.DeleteFunc(r.plan.Touch, func(t *appsv1.ReplicaSet) bool { return t == s })
		r.plan.Scale = append(r.plan.Scale, Scale{Set: s, Up: by > 0, By: max(by, -by)})
	case noted && !slices.Contains(r.plan.Touch, s):
		r.plan.Touch = append(r.plan.Touch, s)
	}
}

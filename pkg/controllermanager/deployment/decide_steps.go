package deployment

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// resize brings a changed number to the sets without going on with an update: to the one that has pods, or in
// proportion to all that have.
func (r *rollout) resize() {
	active := slices.DeleteFunc(r.all(), func(s *appsv1.ReplicaSet) bool { return replicas(s) == 0 })
	switch {
	case len(active) == 0 && r.now != nil:
		r.to(r.now, r.want())
		return
	case len(active) == 0 && len(r.old) > 0: // the template changed while paused: the newest of the old stands in
		r.to(r.old[len(r.old)-1], r.want())
		return
	case len(active) == 0:
		return
	case len(active) == 1:
		r.to(active[0], r.want())
		return
	}
	if r.now != nil && replicas(r.now) == r.want() && available(r.now) == r.want() {
		for _, s := range r.old {
			r.to(s, 0)
		}
		return
	}
	if r.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return
	}
	r.share(active)
}

// share gives each set its part of what is added or taken, the biggest first; what rounding leaves over goes
// to the first that can take it.
func (r *rollout) share(active []*appsv1.ReplicaSet) {
	allowed := int32(0)
	if r.want() > 0 {
		allowed = r.want() + r.surge
	}
	total := sum(active, replicas)
	add := allowed - total
	slices.SortStableFunc(active, func(a, b *appsv1.ReplicaSet) int {
		if c := replicas(b) - replicas(a); c != 0 {
			return int(c)
		}
		if add > 0 { // newer first
			return b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
		}
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	next := make([]int32, len(active))
	left := add
	for i, s := range active {
		part := int32(0)
		if total > 0 && add != 0 {
			part = fraction(replicas(s), s, allowed, total)
			if add > 0 {
				part = min(max(part, 0), left)
			} else {
				part = max(min(part, 0), left)
			}
		}
		next[i] = replicas(s) + part
		left -= part
	}
	for i, s := range active {
		// What rounding left over is the first's; what it cannot give is the next one's.
		n := max(0, next[i]+left)
		left -= n - next[i]
		r.to(s, n)
	}
}

// fraction is how many replicas a set of n gains (or loses) when the most there may be goes from what was noted to most.
func fraction(n int32, s *appsv1.ReplicaSet, most, total int32) int32 {
	noted := number(s.Annotations[maxNote])
	if noted <= 0 {
		noted = int64(total)
	}
	exact := float64(n) * float64(most) / float64(noted)
	rounded := int32(exact + 0.5)
	return rounded - n
}

// recreate ends every old pod before it makes a new one.
func (r *rollout) recreate() {
	active := slices.DeleteFunc(slices.Clone(r.old), func(s *appsv1.ReplicaSet) bool { return replicas(s) == 0 })
	if len(active) > 0 {
		for _, s := range active {
			r.to(s, 0)
		}
		return
	}
	if r.OldPods > 0 {
		return
	}
	r.ensure()
	r.to(r.now, r.want())
	r.history()
}

// roll goes one step of a rolling update: up as far as the surge allows, down as far as availability does.
func (r *rollout) roll() {
	r.ensure()
	if r.plan.Create != nil {
		return
	}
	if replicas(r.now) != r.want() {
		n := r.want() // more than wanted: down at once
		if replicas(r.now) < r.want() {
			room := r.want() + r.surge - sum(r.all(), replicas)
			n = replicas(r.now) + max(0, min(room, r.want()-replicas(r.now)))
		}
		if n != replicas(r.now) {
			r.to(r.now, n)
			return
		}
	}
	r.to(r.now, replicas(r.now)) // its notes may be old
	if sum(r.old, replicas) > 0 && r.shrink() {
		return
	}
	r.history()
}

// shrink takes pods from old sets: the unhealthy first, then as many as availability can spare. It tells whether any.
func (r *rollout) shrink() bool {
	least := r.want() - r.unavailable
	missing := replicas(r.now) - available(r.now)
	spare := sum(r.all(), replicas) - least - missing
	if spare <= 0 {
		return false
	}
	done := false
	taken := int32(0)
	for _, s := range r.old {
		if stale(s) {
			continue // whether its pods are sick is not known: what it tells is from before it was scaled
		}
		if sick := min(replicas(s)-s.Status.AvailableReplicas, spare-taken); replicas(s) > 0 && sick > 0 {
			taken += sick
			r.to(s, replicas(s)-sick)
			done = true
		}
	}
	spare = sum(r.all(), available) - least
	for _, s := range r.old {
		if n := min(replicas(s), spare); n > 0 {
			spare -= n
			r.to(s, replicas(s)-n)
			done = true
		}
	}
	r.merge()
	return done
}

// stale tells that a set's status is from before its spec last changed. A set that went from one pod to none and back to
// one still tells of the pod that is gone.
func stale(s *appsv1.ReplicaSet) bool { return s.Status.ObservedGeneration < s.Generation }

// available is how many pods of a set are there to rely on when others are taken.
func available(s *appsv1.ReplicaSet) int32 {
	if stale(s) {
		return 0
	}
	return min(s.Status.AvailableReplicas, replicas(s))
}

// merge joins the steps of one set into one.
func (r *rollout) merge() {
	var out []Scale
	for _, s := range r.plan.Scale {
		if i := slices.IndexFunc(out, func(o Scale) bool { return o.Set == s.Set }); i >= 0 {
			out[i].By += s.By
			continue
		}
		out = append(out, s)
	}
	r.plan.Scale = out
}

// history forgets the oldest empty sets beyond the limit, once the update is through.
func (r *rollout) history() {
	if r.d.Spec.RevisionHistoryLimit == nil || !r.complete() {
		return
	}
	old := slices.DeleteFunc(slices.Clone(r.old), func(s *appsv1.ReplicaSet) bool { return s.DeletionTimestamp != nil })
	slices.SortStableFunc(old, func(a, b *appsv1.ReplicaSet) int {
		return int(number(a.Annotations[revisionNote]) - number(b.Annotations[revisionNote]))
	})
	for _, s := range old[:max(0, len(old)-int(*r.d.Spec.RevisionHistoryLimit))] {
		if s.Status.Replicas == 0 && replicas(s) == 0 && s.Generation <= s.Status.ObservedGeneration {
			r.plan.Remove = append(r.plan.Remove, s)
		}
	}
}

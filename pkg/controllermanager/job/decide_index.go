package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ignoredNote counts, on a pod, the failures of its index that the pod failure policy ignores.
const ignoredNote = batchv1.JobIndexIgnoredFailureCountAnnotation

func (r *run) completions() int {
	if r.Job.Spec.Completions == nil {
		return 0
	}
	return int(*r.Job.Spec.Completions)
}

func (r *run) inRange(i int) bool { return i >= 0 && i < r.completions() }

// perIndex tells whether each index has a limit of failures of its own.
func (r *run) perIndex() bool { return indexed(r.Job) && r.Job.Spec.BackoffLimitPerIndex != nil }

// indexes finds out which indexes are done and which are lost, and writes both into the status.
func (r *run) indexes() {
	if !indexed(r.Job) {
		return
	}
	r.done, r.lost = map[int]bool{}, map[int]bool{}
	for _, i := range indexes(r.status.CompletedIndexes) {
		if r.inRange(i) {
			r.done[i] = true
		}
	}
	for _, p := range r.Pods {
		// One without the finalizer was counted before, or is not ours to count.
		if i := index(p); p.Status.Phase == corev1.PodSucceeded && r.inRange(i) && holds(p) {
			r.done[i] = true
		}
	}
	r.status.CompletedIndexes, r.status.Succeeded = text(r.done), int32(len(r.done))
	if !r.perIndex() {
		return
	}
	if r.status.FailedIndexes != nil {
		for _, i := range indexes(*r.status.FailedIndexes) {
			if r.inRange(i) {
				r.lost[i] = true
			}
		}
	}
	for _, p := range r.Pods {
		if i := index(p); r.failed(p) && r.inRange(i) && !r.done[i] && holds(p) && r.isLost(p) {
			r.lost[i] = true
		}
	}
	list := text(r.lost)
	r.status.FailedIndexes = &list
}

// isLost tells whether with this failed pod its index has failed for good.
func (r *run) isLost(p *corev1.Pod) bool {
	switch action, _ := match(r.Job.Spec.PodFailurePolicy, p); action {
	case batchv1.PodFailurePolicyActionFailIndex:
		return true
	case batchv1.PodFailurePolicyActionIgnore:
		return false
	}
	return note(p, batchv1.JobIndexFailureCountAnnotation) >= int(*r.Job.Spec.BackoffLimitPerIndex)
}

func note(p *corev1.Pod, key string) int {
	n, err := strconv.Atoi(p.Annotations[key])
	if err != nil {
		return 0
	}
	return n
}

// tries answers how many failures of its index came before a pod.
func tries(p *corev1.Pod) int {
	return note(p, batchv1.JobIndexFailureCountAnnotation) + note(p, ignoredNote)
}

// lastFailed answers the last failed pod of every index that is neither done nor lost.
func (r *run) lastFailed() map[int]*corev1.Pod {
	out := map[int]*corev1.Pod{}
	for _, p := range r.Pods {
		i := index(p)
		if !r.failed(p) || !r.inRange(i) || r.done[i] || r.lost[i] {
			continue
		}
		if was := out[i]; was == nil || tries(p) > tries(was) {
			out[i] = p
		}
	}
	return out
}

// keep answers the failed pods that must not go yet: only they know how often their index has failed, until their
// successor says so.
func (r *run) keep() map[types.UID]bool {
	out := map[types.UID]bool{}
	for i, p := range r.lastFailed() {
		if !slices.ContainsFunc(r.active, func(a *corev1.Pod) bool { return index(a) == i && tries(a) > tries(p) }) {
			out[p.UID] = true
		}
	}
	return out
}

// pending answers the first n indexes that nobody works on.
func (r *run) pending(n int) []int {
	busy := map[int]bool{}
	for _, p := range r.active {
		busy[index(p)] = true
	}
	if patient(r.Job) {
		for _, p := range r.terminating {
			busy[index(p)] = true
		}
	}
	var out []int
	for i := 0; i < r.completions() && len(out) < n; i++ {
		if !busy[i] && !r.done[i] && !r.lost[i] {
			out = append(out, i)
		}
	}
	return out
}

// births answers the pods of the next n indexes; each waits for the last failure of its own index only.
func (r *run) births(n int) []Birth {
	last := r.lastFailed()
	var out []Birth
	for _, i := range r.pending(r.completions()) {
		b := Birth{Index: i}
		if p := last[i]; p != nil {
			if left := wait(tries(p)+1, endedAt(p), r.Now); left > 0 {
				r.again(left)
				continue
			}
			b.Failures, b.Ignored = note(p, batchv1.JobIndexFailureCountAnnotation), note(p, ignoredNote)
			if r.counts(p) {
				b.Failures++
			} else {
				b.Ignored++
			}
		}
		if out = append(out, b); len(out) == n {
			break
		}
	}
	return out
}

// indexes reads "0,2-4".
func indexes(s string) []int {
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		for i := a; i <= b; i++ {
			out = append(out, i)
		}
	}
	return out
}

// text writes indexes as "0,2-4".
func text(set map[int]bool) string {
	var all []int
	for i := range set {
		all = append(all, i)
	}
	slices.Sort(all)
	var parts []string
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j+1] == all[j]+1 {
			j++
		}
		switch j - i {
		case 0:
			parts = append(parts, strconv.Itoa(all[i]))
		case 1:
			parts = append(parts, strconv.Itoa(all[i]), strconv.Itoa(all[j]))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", all[i], all[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

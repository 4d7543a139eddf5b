package fairness

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// glance is how often it is looked whether schemas or levels changed.
const glance = time.Second

// Run tells every flow schema in its status whether its priority level is there, until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	if r == nil {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(glance)
	defer t.Stop()
	var told [2]uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		stamp := [2]uint64{r.c.Env.Changed(flowSchemas), r.c.Env.Changed(priorityLevels)}
		if !r.ready() || stamp == told {
			continue
		}
		if err := r.tell(ctx); err != nil {
			if ctx.Err() == nil {
				slog.Warn("the state of flow schemas cannot be written, trying again", "err", err)
			}
			continue
		}
		told = stamp
	}
}

// tell writes the condition of each schema of which it is not true.
func (r *Room) tell(ctx context.Context) error {
	levels, err := r.c.Env.List(ctx, priorityLevels, "")
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, l := range levels {
		there[l.GetName()] = true
	}
	schemas, err := r.c.Env.List(ctx, flowSchemas, "")
	if err != nil {
		return err
	}
	for _, o := range schemas {
		f := o.(*flowcontrolv1.FlowSchema)
		want := dangling(f.Spec.PriorityLevelConfiguration.Name, there)
		if !setCondition(f.DeepCopy(), want) {
			continue
		}
		_, err := r.c.Env.Mutate(ctx, flowSchemas, "", f.Name, func(o kind.Object) error {
			now := o.(*flowcontrolv1.FlowSchema)
			if now.Spec.PriorityLevelConfiguration.Name == f.Spec.PriorityLevelConfiguration.Name {
				want.LastTransitionTime = metav1.Now()
				setCondition(now, want)
			}
			return nil
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("of %s: %w", f.Name, err)
		}
	}
	return nil
}

func dangling(level string, there map[string]bool) flowcontrolv1.FlowSchemaCondition {
	c := flowcontrolv1.FlowSchemaCondition{Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, Reason: "Found",
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", level)}
	if !there[level] {
		c.Status, c.Reason = flowcontrolv1.ConditionTrue, "NotFound"
		c.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", level)
	}
	return c
}

// setCondition takes a condition over and tells whether it says anything new.
func setCondition(f *flowcontrolv1.FlowSchema, c flowcontrolv1.FlowSchemaCondition) bool {
	at := slices.IndexFunc(f.Status.Conditions, func(x flowcontrolv1.FlowSchemaCondition) bool { return x.Type == c.Type })
	if at < 0 {
		f.Status.Conditions = append(f.Status.Conditions, c)
		return true
	}
	was := &f.Status.Conditions[at]
	if was.Status == c.Status && was.Reason == c.Reason && was.Message == c.Message {
		return false
	}
	if was.Status == c.Status {
		c.LastTransitionTime = was.LastTransitionTime
	}
	*was = c
	return true
}

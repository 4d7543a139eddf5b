package migration

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The reasons of conditions.
const (
	running   = "StorageVersionMigrationInProgress"
	succeeded = "StorageVersionMigrationSucceeded"
	failed    = "StorageVersionMigrationFailed"
)

// Snapshot is what is decided upon.
type Snapshot struct {
	Migration *storagemigrationv1.StorageVersionMigration
	Served    bool   // whether the apiserver has the resource
	Version   string // of the resource's list as it is now, "" = not asked for
	Done      bool   // whether every object that was there then has been written again
	Now       time.Time
}

// Plan is what is to be done: at most one of both.
type Plan struct {
	Status *storagemigrationv1.StorageVersionMigrationStatus
	Write  bool // the objects again
}

// String is the plan in words, "" for nothing.
func (p Plan) String() string {
	if p.Write {
		return "write the objects again\n"
	}
	if p.Status == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "from version %q\n", p.Status.ResourceVersion)
	for _, c := range p.Status.Conditions {
		fmt.Fprintf(&b, "%s is %s: %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}

// decide takes a migration one step on: it is begun at a version, what is older than that is written again, it ends.
func decide(s Snapshot) Plan {
	m := s.Migration
	if ended(m) || m.DeletionTimestamp != nil {
		return Plan{}
	}
	next := m.Status.DeepCopy()
	set := func(kind storagemigrationv1.MigrationConditionType, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&next.Conditions, metav1.Condition{Type: string(kind), Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(s.Now)})
	}
	switch {
	case !s.Served:
		set(storagemigrationv1.MigrationRunning, metav1.ConditionFalse, failed, "")
		set(storagemigrationv1.MigrationFailed, metav1.ConditionTrue, failed, fmt.Sprintf("the apiserver has no resource %s", (&m.Spec.Resource).String()))
	case m.Status.ResourceVersion == "":
		next.ResourceVersion = s.Version
		set(storagemigrationv1.MigrationRunning, metav1.ConditionTrue, running, "")
	case !s.Done:
		return Plan{Write: true}
	default:
		set(storagemigrationv1.MigrationRunning, metav1.ConditionFalse, succeeded, "")
		set(storagemigrationv1.MigrationSucceeded, metav1.ConditionTrue, succeeded, "")
	}
	return Plan{Status: next}
}

func ended(m *storagemigrationv1.StorageVersionMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationSucceeded)) ||
		meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationFailed))
}

// since tells whether an object was written after the migration began; if that cannot be told it was not.
func since(version, began string) bool {
	v, err := strconv.ParseUint(version, 10, 64)
	b, err2 := strconv.ParseUint(began, 10, 64)
	return err == nil && err2 == nil && v > b
}

package controllermanager

import (
	"errors"
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// drivePolicies has a policy checked whose expression asks for a field that its kind has not.
func drivePolicies(s *space) {
	api := s.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	_, err := api.Create(s.t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
			Rule:       admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}},
		}}}},
		Validations: []admissionregistrationv1.Validation{{Expression: "object.spec.replicas < 5"}, {Expression: "object.spec.nothing == 1"}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the policy to be checked", func() error {
		p, err := api.Get(s.t.Context(), s.ns, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if p.Status.TypeChecking == nil || p.Status.ObservedGeneration != p.Generation {
			return errors.New("it was not checked")
		}
		w := p.Status.TypeChecking.ExpressionWarnings
		if len(w) != 1 || w[0].FieldRef != "spec.validations[1].expression" || !strings.Contains(w[0].Warning, "nothing") {
			return fmt.Errorf("%v", w)
		}
		return nil
	})
	s.ok(api.Delete(s.t.Context(), s.ns, metav1.DeleteOptions{}))
}

// driveLabels has two pods of different labels share a disk.
func driveLabels(s *space) {
	claim, err := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Create(s.t.Context(), s.claim("disk"), metav1.CreateOptions{})
	s.ok(err)
	_, err = s.admin.CoreV1().PersistentVolumes().Create(s.t.Context(), &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: s.ns, AccessModes: once, Capacity: small, ClaimRef: &corev1.ObjectReference{Namespace: s.ns, Name: "disk", UID: claim.UID},
		PersistentVolumeSource: corev1.PersistentVolumeSource{ISCSI: &corev1.ISCSIPersistentVolumeSource{TargetPortal: "192.0.2.1", IQN: "iqn.2000-01.test:" + s.ns}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	for i, name := range []string{"one", "two"} {
		t := template()
		t.Spec.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{Level: fmt.Sprint("s0:c", i)}}
		t.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: claimed("disk")}}
		t.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		s.wait("a pod", func() error {
			_, err := s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: t.Spec}, metav1.CreateOptions{})
			return err
		})
	}
	s.event("one", "SELinuxLabelConflict", "selinux_warning")
	s.event("two", "SELinuxLabelConflict", "selinux_warning")
	want := fmt.Sprintf(`selinux_warning_controller_selinux_volume_conflict{pod1_name="one",pod1_namespace=%q,pod1_value=":::s0:c0",pod2_name="two",pod2_namespace=%q,pod2_value=":::s0:c1",property="SELinuxLabel"} 1`, s.ns, s.ns)
	s.wait("the metric", func() error {
		if s.crashing || s.silent {
			return nil // there is nobody to ask for long
		}
		if code, text := s.get("/metrics", "admin"); !strings.Contains(text, want) {
			return fmt.Errorf("%d, without %s", code, want)
		}
		return nil
	})
}

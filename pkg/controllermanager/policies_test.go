package controllermanager

import (
	"errors"
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
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

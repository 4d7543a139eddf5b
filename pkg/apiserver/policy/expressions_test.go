package policy

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	v1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kinds/admissionregistration"
)

// objects is an Env in which one policy of each kind is stored and bound. What no policy asks for is not there.
type objects struct {
	kind.Env
	byResource map[string][]kind.Object
}

func (o objects) Changed(schema.GroupResource) uint64 { return 1 }

func (o objects) List(_ context.Context, gr schema.GroupResource, _ string) ([]kind.Object, error) {
	return o.byResource[gr.Resource], nil
}

func (o objects) Get(_ context.Context, _ schema.GroupResource, _, name string) (kind.Object, error) {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"a": "b"}}}, nil
}

// nobody may do anything.
type nobody struct{}

func (nobody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionNoOpinion, "nobody may", nil
}

// FuzzExpressions reads anything as the expressions of a policy. It is refused with a place and a reason, or asked about a
// write: soon the write is allowed, or refused by a Status that says it is the client's fault and names the policy.
func FuzzExpressions(f *testing.F) {
	for _, s := range [][3]string{
		{"object.metadata.name", "variables.v.size() < 9", "'it is ' + variables.v"}, {"1", "false", "object.metadata.name"}, {"object", "variables.v.data.all(k, k < 'm')", "1"}, {"oldObject", "variables.v == null", "''"},
		{"request.userInfo.groups", "variables.v.exists(g, g == 'a') && authorizer.group('').resource('pods').check('get').allowed()", "string(request.dryRun)"}, {"namespaceObject.metadata.labels", "variables.v['a'] == 'b'", "namespaceObject.metadata.name"},
		{"1/0", "variables.v == 1", "string(1/0)"}, {"object.zz", "has(object.zz)", "object.zz"}, {"variables.v", "variables.v", "variables.v"}, {"(((", "(((", "((("}, {"", "", ""}, {"params", "params.a == 1", ""}, {"object.spec.replicas", "object.data['a'].matches('(a+)+$')", "'a\\nb'"},
		{"object.data", "variables.v.all(x, variables.v.all(y, variables.v.all(z, x + y != z)))", "object.data['a']"}, {"'a'", "cel.bind(a, variables.v + variables.v, a + a).size() > 9", "variables.v.replace('', 'bbbb')"},
		{"Object{metadata: Object.metadata{annotations: {'a': object.metadata.name}}}", "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'a': 'b'}}]", ""}, {"Object{metadata: Object.metadata{name: 'b'}}", "[JSONPatch{op: 'copy', from: '/data', path: '/metadata/annotations'}, JSONPatch{op: 'test', path: '/data', value: {}}]", ""},
		{"Object{data: {'x': string(1/0)}}", "[JSONPatch{op: 'remove', path: '/metadata'}]", ""}, {"Object{zz: 1}", "[JSONPatch{op: 'move', from: '/data/a', path: '/kind'}]", ""}, {"Object{}", "[]", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	rows := [2]*kind.Def{admissionregistration.ValidatingAdmissionPolicy(), admissionregistration.MutatingAdmissionPolicy()}
	maps := kind.Row(kind.Def{Kind: "ConfigMap", Resource: "configmaps", Namespaced: true}, kind.In[corev1.ConfigMap, corev1.ConfigMapList](corev1.SchemeGroupVersion, nil))
	config := Config{Authz: nobody{}, Row: func(schema.GroupVersionKind) *kind.Def { return nil }}
	const everything = `"matchConstraints":{"resourceRules":[{"apiGroups":["*"],"apiVersions":["*"],"operations":["*"],"resources":["*"]}]},"failurePolicy":"Fail"`
	f.Fuzz(func(t *testing.T, first, second, third string) {
		begun := time.Now()
		said := func(s string) string { b, _ := json.Marshal(s); return string(b) }
		validating, mutating := &v1.ValidatingAdmissionPolicy{}, &v1.MutatingAdmissionPolicy{}
		for text, into := range map[string]any{
			`{"metadata":{"name":"p"},"spec":{` + everything + `,"variables":[{"name":"v","expression":` + said(first) + `}],"validations":[{"expression":` + said(second) + `,"messageExpression":` + said(third) + `}],
				"auditAnnotations":[{"key":"k","valueExpression":` + said(third) + `}],"matchConditions":[{"name":"c","expression":` + said("true || "+second) + `}]}}`: validating,
			`{"metadata":{"name":"m"},"spec":{` + everything + `,"reinvocationPolicy":"Never","mutations":[{"patchType":"ApplyConfiguration","applyConfiguration":{"expression":` + said(first) + `}},
				{"patchType":"JSONPatch","jsonPatch":{"expression":` + said(second) + `}}]}}`: mutating,
		} {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
		env := objects{byResource: map[string][]kind.Object{}}
		for i, p := range []kind.Object{validating, mutating} {
			rows[i].Versions[0].Default(p)
			errs := rows[i].Check(&kind.Op{Ctx: t.Context(), Verb: "create", Def: rows[i], Now: begun}, p, nil)
			explained(t, errs)
			// One that was stored by an older server is asked whether it would be accepted today or not.
			env.byResource[rows[i].Resource] = []kind.Object{p}
		}
		env.byResource["validatingadmissionpolicybindings"] = []kind.Object{&v1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: v1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "p", ValidationActions: []v1.ValidationAction{v1.Deny, v1.Audit}},
		}}
		env.byResource["mutatingadmissionpolicybindings"] = []kind.Object{&v1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: v1.MutatingAdmissionPolicyBindingSpec{PolicyName: "m"}}}
		for _, chain := range []admission.Chain{{Validating(config)}, {Mutating(config)}} {
			r := &admission.Request{
				Verb: admission.Create, Def: maps, Resource: corev1.SchemeGroupVersion.WithResource("configmaps"), Namespace: "n", Name: "a", User: &user.DefaultInfo{Name: "u", Groups: []string{"a"}}, Env: env, Options: &metav1.CreateOptions{},
				Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n"}, Data: map[string]string{"a": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "b": ""}}, Warn: func(string) {}, Annotate: func(_, _ string) {},
			}
			err := chain.Mutate(t.Context(), r)
			if err == nil {
				err = chain.Validate(t.Context(), r)
			}
			if err == nil {
				continue
			}
			var s apierrors.APIStatus
			if !errors.As(err, &s) || s.Status().Code < 400 || s.Status().Code > 499 || s.Status().Message == "" {
				t.Errorf("%q, %q, %q is answered with %v", first, second, third, err)
			}
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// explained fails for a fault that is the server's, or says nothing.
func explained(t *testing.T, errs field.ErrorList) {
	t.Helper()
	for _, e := range errs {
		if e.Type == field.ErrorTypeInternal || e.Field == "" {
			t.Errorf("a fault is %q", e)
		}
	}
}

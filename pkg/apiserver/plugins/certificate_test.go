package plugins

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
	"github.com/sextant-k8s/sextant/pkg/apiserver/authz"
	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// Changed never moves: a world stays as it was made.
func (w world) Changed(schema.GroupResource) uint64 { return 0 }

// signers is a world where users have a verb on a signer each, and the authorizer of it.
func signers(t *testing.T, rules map[string]rbacv1.PolicyRule) *authz.Chain {
	t.Helper()
	w := world{objects: map[schema.GroupResource][]kind.Object{}}
	in := func(plural string) schema.GroupResource {
		return schema.GroupResource{Group: rbacv1.GroupName, Resource: plural}
	}
	for name, r := range rules {
		r.APIGroups, r.Resources = []string{certificatesv1.GroupName}, []string{"signers"}
		m := metav1.ObjectMeta{Name: name}
		w.objects[in("clusterroles")] = append(w.objects[in("clusterroles")], &rbacv1.ClusterRole{ObjectMeta: m, Rules: []rbacv1.PolicyRule{r}})
		w.objects[in("clusterrolebindings")] = append(w.objects[in("clusterrolebindings")], &rbacv1.ClusterRoleBinding{
			ObjectMeta: m, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: name}, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: name}},
		})
	}
	c, err := authz.New([]string{"RBAC"}, w)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSignersDecideOnTheirOwnRequests(t *testing.T) {
	chain := signers(t, map[string]rbacv1.PolicyRule{
		"exact":  {Verbs: []string{"approve", "sign"}, ResourceNames: []string{"example.com/a"}},
		"domain": {Verbs: []string{"approve", "sign"}, ResourceNames: []string{"example.com/*"}},
		"other":  {Verbs: []string{"approve", "sign"}, ResourceNames: []string{"example.com/b", "example.org/*"}},
		"looker": {Verbs: []string{"get"}},
	})
	old := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: "example.com/a"}}
	signed := old.DeepCopy()
	signed.Status.Certificate = []byte("c")
	failed := old.DeepCopy()
	failed.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateFailed}}
	for _, who := range []string{"exact", "domain", "other", "looker"} {
		for _, c := range []struct {
			plugin   admission.Plugin
			sub      string
			obj      *certificatesv1.CertificateSigningRequest
			refusing string // what the refusal calls it; "" = always allowed
		}{
			{CertificateApproval(chain), "approval", old, "approve"},
			{CertificateApproval(chain), "", old, ""},
			{CertificateSigning(chain), "status", signed, "sign"},
			{CertificateSigning(chain), "status", failed, "sign"},
			{CertificateSigning(chain), "status", old, ""},
		} {
			r := &admission.Request{
				Verb: admission.Update, Resource: certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"), Sub: c.sub, Name: "x",
				Object: c.obj, Old: old, User: &user.DefaultInfo{Name: who},
			}
			want := ""
			if c.refusing != "" && (who == "other" || who == "looker") {
				want = `certificatesigningrequests.certificates.k8s.io "x" is forbidden: user not permitted to ` + c.refusing + ` requests with signerName "example.com/a"`
			}
			got := ""
			if err := (admission.Chain{c.plugin}).Validate(context.Background(), r); err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("%s, %s on %q: answered %q, want %q", c.plugin.Name, who, c.sub, got, want)
			}
		}
	}
}

func TestNobodyAsksToOwnTheCluster(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ signer, group, want string }{
		{certificatesv1.KubeAPIServerClientSignerName, "system:masters", "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"},
		{certificatesv1.KubeAPIServerClientSignerName, "dev", ""},
		{"example.com/a", "system:masters", ""},
	} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{Organization: []string{c.group}}}, key)
		if err != nil {
			t.Fatal(err)
		}
		err = create(CertificateSubjectRestriction, world{}, "certificatesigningrequests", &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: c.signer, Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		}})
		if c.want == "" && err != nil || c.want != "" && (!apierrors.IsForbidden(err) || !strings.HasSuffix(err.Error(), c.want)) {
			t.Errorf("%+v: answered %v", c, err)
		}
	}
}

func TestPluginNamesAreKnown(t *testing.T) {
	for _, c := range []struct {
		enable, disable []string
		want            string
	}{
		{[]string{"LimitRanger"}, []string{"PodSecurity"}, ""},
		{[]string{"Nothing"}, nil, `--enable-admission-plugins: there is no plugin "Nothing"`},
		{nil, []string{"RBACEscalation"}, `--disable-admission-plugins: there is no plugin "RBACEscalation"`},
		{nil, []string{""}, `--disable-admission-plugins: there is no plugin ""`},
		{nil, []string{"Nothing"}, `--disable-admission-plugins: there is no plugin "Nothing"`},
	} {
		chain, err := New(Config{Enable: c.enable, Disable: c.disable, Authz: signers(t, nil)})
		if got := ""; err != nil {
			if got = err.Error(); got != c.want {
				t.Errorf("answered %q, want %q", got, c.want)
			}
			continue
		}
		if c.want != "" {
			t.Errorf("%v, %v were accepted", c.enable, c.disable)
		}
		for _, p := range chain {
			if p.Name == "PodSecurity" {
				t.Error("a disabled plugin is there")
			}
		}
	}
}

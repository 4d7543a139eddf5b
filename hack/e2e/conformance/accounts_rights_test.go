//go:build e2e

package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

var rights = []behaviour{
	{name: "Certificates API should support CSR API operations", test: func(w *world) {
		operations(kind{name: "CertificateSigningRequest", resource: "certificates.k8s.io/v1 certificatesigningrequests", manifest: `{"spec":{"request":"` + base64.StdEncoding.EncodeToString(request("x")) + `","signerName":"e2e.example.com/signer","usages":["client auth"],"expirationSeconds":600}}`,
			status: conditioned, statusPath: "status.conditions.0.type", statusValue: "Patched"})(w)
	}},
	{name: "Certificates API should approve, deny and sign requests", test: requestsSigned},
	{name: "SubjectReview should support SubjectReview API operations", test: reviews},
	{name: "ServiceAccounts should bind tokens to what they are of", test: tokensBound},
	{name: "ServiceAccounts should update a ServiceAccount, and give no token where there is none", test: accountUpdated},
	{name: "Roles should let their subjects do what they say, and nobody more than they may", test: roles},
	{name: "Roles should be put together by their labels", test: rolesAggregated},
}

// request is a certificate request of a user, in PEM.
func request(user string) []byte {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: user, Organization: []string{"e2e"}}}, key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func requestsSigned(w *world) {
	csrs := api.CertificatesV1().CertificateSigningRequests()
	create := func(name string) string {
		name = w.ns + "-" + name
		must(csrs.Create(ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{Request: request("e2e-" + w.ns), SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}, ExpirationSeconds: ptr(int32(3600))}}, metav1.CreateOptions{}))
		w.Cleanup(func() { _ = csrs.Delete(ctx, name, metav1.DeleteOptions{}) })
		return name
	}
	decide := func(name string, kind certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
		var c *certificatesv1.CertificateSigningRequest
		done(retry.RetryOnConflict(retry.DefaultRetry, func() error {
			var err error
			c = must(csrs.Get(ctx, name, metav1.GetOptions{}))
			c.Status.Conditions = append(c.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, Reason: "E2E", Message: "m"})
			c, err = csrs.UpdateApproval(ctx, name, c, metav1.UpdateOptions{})
			return err
		}))
		return c
	}
	signed := create("signed")
	must(csrs.Patch(ctx, signed, types.MergePatchType, []byte(`{"metadata":{"annotations":{"approval":"patched"}}}`), metav1.PatchOptions{}, "approval"))
	same("user", must(csrs.Get(ctx, signed, metav1.GetOptions{})).Spec.Username != "", true)
	same("approved", string(decide(signed, certificatesv1.CertificateApproved).Status.Conditions[0].Type), "Approved")
	w.until(30*time.Second, "signed", func() error {
		c := must(csrs.Get(ctx, signed, metav1.GetOptions{}))
		block, _ := pem.Decode(c.Status.Certificate)
		if block == nil {
			return errGone
		}
		leaf := must(x509.ParseCertificate(block.Bytes))
		same("name", leaf.Subject.CommonName, "e2e-"+w.ns)
		same("it ends in an hour", time.Until(leaf.NotAfter) < 61*time.Minute, true)
		return nil
	})
	same("by signer", len(must(csrs.List(ctx, metav1.ListOptions{FieldSelector: "spec.signerName=" + certificatesv1.KubeAPIServerClientSignerName + ",metadata.name=" + signed})).Items), 1)
	denied := create("denied")
	decide(denied, certificatesv1.CertificateDenied)
	_, err := csrs.UpdateApproval(ctx, denied, func() *certificatesv1.CertificateSigningRequest {
		c := must(csrs.Get(ctx, denied, metav1.GetOptions{}))
		c.Status.Conditions = append(c.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "E2E"})
		return c
	}(), metav1.UpdateOptions{})
	refused(err, apierrors.IsInvalid)
	_, err = csrs.Create(ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: w.ns}, Spec: certificatesv1.CertificateSigningRequestSpec{Request: []byte("x"), SignerName: "e2e.example.com/s", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}}}, metav1.CreateOptions{})
	refused(err, apierrors.IsInvalid)
}

// as is a client that acts for a user.
func as(user string, groups ...string) kubernetes.Interface {
	c := rest.CopyConfig(config)
	c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return must(kubernetes.NewForConfig(c))
}

func (w *world) grant(subject rbacv1.Subject, rules ...rbacv1.PolicyRule) {
	w.Helper()
	name := fmt.Sprintf("granted-%d", counter.Add(1))
	must(api.RbacV1().Roles(w.ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{}))
	must(api.RbacV1().RoleBindings(w.ns).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}, Subjects: []rbacv1.Subject{subject}}, metav1.CreateOptions{}))
}

func reader(resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: resources, Verbs: []string{"get", "list"}}
}

func reviews(w *world) {
	user := "e2e-" + w.ns
	w.grant(rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}, reader("pods"))
	ask := func(verb, resource string) authorizationv1.SubjectAccessReviewSpec {
		return authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: w.ns, Verb: verb, Resource: resource}}
	}
	w.until(20*time.Second, "the grant is known", func() error {
		r := must(api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: ask("list", "pods")}, metav1.CreateOptions{}))
		return differs("allowed", r.Status.Allowed, true)
	})
	same("not granted", must(api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: ask("delete", "pods")}, metav1.CreateOptions{})).Status.Allowed, false)
	local := &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns}, Spec: ask("get", "pods")}
	same("local", must(api.AuthorizationV1().LocalSubjectAccessReviews(w.ns).Create(ctx, local, metav1.CreateOptions{})).Status.Allowed, true)
	local.Spec.ResourceAttributes.Namespace = "default"
	_, err := api.AuthorizationV1().LocalSubjectAccessReviews(w.ns).Create(ctx, local, metav1.CreateOptions{})
	refused(err, func(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) })
	own := as(user)
	self := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: w.ns, Verb: "get", Resource: "pods"}}}
	same("own", must(own.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, self, metav1.CreateOptions{})).Status.Allowed, true)
	rules := must(own.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: w.ns}}, metav1.CreateOptions{}))
	contains(fmt.Sprint(rules.Status.ResourceRules), "[get list] [] [pods]")
	who := must(own.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}))
	same("user", who.Status.UserInfo.Username, user)
	same("groups", strings.Join(who.Status.UserInfo.Groups, " "), "system:authenticated")
	_, err = api.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user}}, metav1.CreateOptions{})
	refused(err, apierrors.IsInvalid)
	path := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, Groups: []string{"system:authenticated"}, NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/version", Verb: "get"}}}
	same("a path", must(api.AuthorizationV1().SubjectAccessReviews().Create(ctx, path, metav1.CreateOptions{})).Status.Allowed, true)
}

func tokensBound(w *world) {
	accounts := api.CoreV1().ServiceAccounts(w.ns)
	s := w.secret("bound", map[string]string{"k": "v"})
	token := must(accounts.CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"e2e.example.com"}, ExpirationSeconds: ptr(int64(700)),
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: "bound", UID: s.UID}}}, metav1.CreateOptions{}))
	left := time.Until(token.Status.ExpirationTimestamp.Time)
	same("it ends when asked", left > 600*time.Second && left < 710*time.Second, true)
	review := func(audiences ...string) authenticationv1.TokenReviewStatus {
		return must(api.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token, Audiences: audiences}}, metav1.CreateOptions{})).Status
	}
	same("for another audience", review("other.example.com").Authenticated, false)
	good := review("e2e.example.com", "other.example.com")
	same("authenticated", good.Authenticated, true)
	same("audiences", strings.Join(good.Audiences, " "), "e2e.example.com")
	same("groups", strings.Join(good.User.Groups, " "), "system:serviceaccounts system:serviceaccounts:"+w.ns+" system:authenticated")
	done(api.CoreV1().Secrets(w.ns).Delete(ctx, "bound", metav1.DeleteOptions{}))
	w.until(30*time.Second, "the token ends with its secret", func() error { return differs("authenticated", review("e2e.example.com").Authenticated, false) })
	_, err := accounts.CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr(int64(60))}}, metav1.CreateOptions{})
	refused(err, apierrors.IsInvalid)
	_, err = accounts.CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "ConfigMap", Name: "x"}}}, metav1.CreateOptions{})
	refused(err, apierrors.IsBadRequest)
	_, err = accounts.CreateToken(ctx, "none", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	refused(err, apierrors.IsNotFound)
}

func accountUpdated(w *world) {
	accounts := api.CoreV1().ServiceAccounts(w.ns)
	a := must(accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a"}, AutomountServiceAccountToken: ptr(false)}, metav1.CreateOptions{}))
	a.AutomountServiceAccountToken = ptr(true)
	a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pulls"}}
	same("updated", *must(accounts.Update(ctx, a, metav1.UpdateOptions{})).AutomountServiceAccountToken, true)
	// Admission may know the account as it was a moment ago.
	w.until(10*time.Second, "a pod gets the pull secrets of its account", func() error {
		p := w.create(pod("", "true", func(p *corev1.Pod) { p.GenerateName, p.Spec.ServiceAccountName = "with-", "a" }))
		return differs("pull secrets", fmt.Sprint(p.Spec.ImagePullSecrets), "[{pulls}]")
	})
	_, err := api.CoreV1().Pods(w.ns).Create(ctx, pod("without", "true", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "none" }), metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	contains(err.Error(), `error looking up service account `+w.ns+`/none`)
	done(accounts.Delete(ctx, "default", metav1.DeleteOptions{}))
	w.until(20*time.Second, "the default account is made again", func() error {
		_, err := accounts.Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	// A secret that asks for a token gets one, and goes with its account.
	must(api.CoreV1().Secrets(w.ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "legacy", Annotations: map[string]string{corev1.ServiceAccountNameKey: "a"}}, Type: corev1.SecretTypeServiceAccountToken}, metav1.CreateOptions{}))
	w.until(30*time.Second, "the secret has its token", func() error {
		s := must(api.CoreV1().Secrets(w.ns).Get(ctx, "legacy", metav1.GetOptions{}))
		return differs("filled", len(s.Data["token"]) > 0 && len(s.Data["ca.crt"]) > 0 && string(s.Data["namespace"]) == w.ns, true)
	})
	done(accounts.Delete(ctx, "a", metav1.DeleteOptions{}))
	w.until(30*time.Second, "the secret is gone", func() error {
		_, err := api.CoreV1().Secrets(w.ns).Get(ctx, "legacy", metav1.GetOptions{})
		return absent(err)
	})
}

func roles(w *world) {
	account := as("system:serviceaccount:"+w.ns+":default", "system:serviceaccounts", "system:serviceaccounts:"+w.ns, "system:authenticated")
	_, err := account.CoreV1().ConfigMaps(w.ns).List(ctx, metav1.ListOptions{})
	refused(err, apierrors.IsForbidden)
	contains(err.Error(), `User "system:serviceaccount:`+w.ns+`:default" cannot list resource "configmaps" in API group "" in the namespace "`+w.ns+`"`)
	w.grant(rbacv1.Subject{Kind: "ServiceAccount", Name: "default", Namespace: w.ns}, reader("configmaps"), rbacv1.PolicyRule{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}, Verbs: []string{"create", "update"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"one"}, Verbs: []string{"get"}})
	w.until(20*time.Second, "the grant is known", func() error {
		_, err := account.CoreV1().ConfigMaps(w.ns).List(ctx, metav1.ListOptions{})
		return err
	})
	_, err = account.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
	refused(err, apierrors.IsForbidden)
	_, err = account.CoreV1().Secrets(w.ns).Get(ctx, "one", metav1.GetOptions{})
	refused(err, apierrors.IsNotFound)
	_, err = account.CoreV1().Secrets(w.ns).Get(ctx, "two", metav1.GetOptions{})
	refused(err, apierrors.IsForbidden)
	// It may hand on what it has, and no more.
	must(account.RbacV1().Roles(w.ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "less"}, Rules: []rbacv1.PolicyRule{reader("configmaps")}}, metav1.CreateOptions{}))
	_, err = account.RbacV1().Roles(w.ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Rules: []rbacv1.PolicyRule{reader("secrets")}}, metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	contains(err.Error(), "is attempting to grant RBAC permissions not currently held")
	_, err = account.RbacV1().RoleBindings(w.ns).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "more"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}}, metav1.CreateOptions{})
	refused(err, apierrors.IsForbidden)
	b := must(api.RbacV1().RoleBindings(w.ns).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "fixed"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "less"}}, metav1.CreateOptions{}))
	b.RoleRef.Name = "other"
	_, err = api.RbacV1().RoleBindings(w.ns).Update(ctx, b, metav1.UpdateOptions{})
	refused(err, apierrors.IsInvalid)
	contains(err.Error(), "cannot change roleRef")
	// A user who may impersonate nobody does not.
	other := rest.CopyConfig(config)
	other.Impersonate = rest.ImpersonationConfig{UserName: "e2e-" + w.ns, Extra: map[string][]string{"scopes": {"x"}}}
	who := must(must(kubernetes.NewForConfig(other)).AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}))
	same("extra", fmt.Sprint(who.Status.UserInfo.Extra["scopes"]), "[x]")
}

func rolesAggregated(w *world) {
	cluster := api.RbacV1().ClusterRoles()
	label := map[string]string{"e2e.example.com/" + w.ns: "true"}
	sum := must(cluster.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: w.ns + "-sum"}, AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: label}}}}, metav1.CreateOptions{}))
	part := must(cluster.Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: w.ns + "-part", Labels: label}, Rules: []rbacv1.PolicyRule{reader("pods")}}, metav1.CreateOptions{}))
	w.Cleanup(func() {
		for _, r := range []string{sum.Name, part.Name} {
			_ = cluster.Delete(ctx, r, metav1.DeleteOptions{})
		}
	})
	rules := func(want int) {
		w.until(20*time.Second, "the rules are put together", func() error {
			return differs("rules", len(must(cluster.Get(ctx, sum.Name, metav1.GetOptions{})).Rules), want)
		})
	}
	rules(1)
	done(cluster.Delete(ctx, part.Name, metav1.DeleteOptions{}))
	rules(0)
}

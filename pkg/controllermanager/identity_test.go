package controllermanager

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func driveAccounts(s *space) {
	core := s.admin.CoreV1()
	there := func() error {
		if _, err := core.ServiceAccounts(s.ns).Get(s.t.Context(), "default", metav1.GetOptions{}); err != nil {
			return err
		}
		m, err := core.ConfigMaps(s.ns).Get(s.t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
		if err == nil && !strings.Contains(m.Data["ca.crt"], "BEGIN CERTIFICATE") {
			return fmt.Errorf("it holds %v", m.Data)
		}
		return err
	}
	s.wait("account and CA", there)
	_, err := core.ConfigMaps(s.ns).Patch(s.t.Context(), "kube-root-ca.crt", types.MergePatchType, []byte(`{"data":{"ca.crt":"other"}}`), metav1.PatchOptions{})
	s.ok(err)
	s.wait("a changed CA to be put right", there)
	s.ok(core.ConfigMaps(s.ns).Delete(s.t.Context(), "kube-root-ca.crt", metav1.DeleteOptions{}))
	s.ok(core.ServiceAccounts(s.ns).Delete(s.t.Context(), "default", metav1.DeleteOptions{}))
	s.wait("account and CA to be made again", there)
}

func driveClusterRole(s *space) {
	rule := func(resource string) []rbacv1.PolicyRule {
		return []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{resource}, Verbs: []string{"get"}}}
	}
	roles := s.admin.RbacV1().ClusterRoles()
	_, err := roles.Create(s.t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: s.ns + "-all"}, AggregationRule: &rbacv1.AggregationRule{
		ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"into": s.ns}}},
	}}, metav1.CreateOptions{})
	s.ok(err)
	_, err = roles.Create(s.t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: s.ns + "-part", Labels: map[string]string{"into": s.ns}}, Rules: rule("pods")}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the rules", func() error {
		r, err := roles.Get(s.t.Context(), s.ns+"-all", metav1.GetOptions{})
		if err == nil && (len(r.Rules) != 1 || r.Rules[0].Resources[0] != "pods") {
			return fmt.Errorf("%v", r.Rules)
		}
		return err
	})
}

// serving looks at who may read what.
func (c *cluster) serving(t *testing.T) {
	c.issue("nobody", pkix.Name{CommonName: "nobody"})
	for _, x := range []struct {
		path, name string
		code       int
		text       string
	}{
		{"/healthz", "", 200, "ok"},
		{"/metrics", "", 401, "Unauthorized"},
		{"/metrics", "nobody", 403, `user "nobody" cannot get path "/metrics"`},
		{"/metrics", "admin", 200, `workqueue_adds_total{name="deployment"}`},
		{"/metrics", "admin", 200, "rest_client_requests_total"},
		{"/debug/pprof/cmdline", "admin", 200, ""},
		{"/debug/pprof/cmdline", "nobody", 403, ""},
	} {
		wait(t, x.path, func() error { // some counters are there only when the lease is won
			if code, text := c.get(x.path, x.name); code != x.code || !strings.Contains(text, x.text) {
				return fmt.Errorf("%s as %q: %d %s", x.path, x.name, code, tail(text, 200))
			}
			return nil
		})
	}
}

// driveBootstrap signs cluster-info with a token, and forgets both when its time is over, which is longer where all take their time.
func driveBootstrap(s *space) {
	_, err := s.admin.CoreV1().ConfigMaps("kube-public").Create(s.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cluster-info"}, Data: map[string]string{"kubeconfig": "clusters: []"}}, metav1.CreateOptions{})
	s.ok(err)
	_, err = s.admin.CoreV1().Secrets("kube-system").Create(s.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"}, Type: "bootstrap.kubernetes.io/token", StringData: map[string]string{
		"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true", "expiration": time.Now().Add(patience / 10).UTC().Format(time.RFC3339),
	}}, metav1.CreateOptions{})
	s.ok(err)
	signed := func() (bool, error) {
		m, err := s.admin.CoreV1().ConfigMaps("kube-public").Get(s.t.Context(), "cluster-info", metav1.GetOptions{})
		return err == nil && strings.Contains(m.Data["jws-kubeconfig-abcdef"], ".."), err
	}
	s.wait("a signature", func() error {
		if is, err := signed(); err != nil || !is {
			return fmt.Errorf("%v %v", is, err)
		}
		return nil
	})
	s.wait("the end of the token", func() error {
		_, err := s.admin.CoreV1().Secrets("kube-system").Get(s.t.Context(), "bootstrap-token-abcdef", metav1.GetOptions{})
		return gone(err)
	})
	s.wait("the end of the signature", func() error {
		if is, err := signed(); err != nil || is {
			return fmt.Errorf("%v %v", is, err)
		}
		return nil
	})
}

// driveCertificates gets a kubelet's certificate as a kubelet does, and asks with it.
func driveCertificates(s *space) {
	name := "system:node:" + s.ns
	key := newKey(s.t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: []string{"system:nodes"}}}, key)
	s.ok(err)
	// Who has this role may have certificates of nodes.
	_, err = s.admin.RbacV1().ClusterRoleBindings().Create(s.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.ns}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "admin"}},
	}, metav1.CreateOptions{})
	s.ok(err)
	requests := s.admin.CertificatesV1().CertificateSigningRequests()
	_, err = requests.Create(s.t.Context(), &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, ExpirationSeconds: new(int32(3600)),
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
	}}, metav1.CreateOptions{})
	s.ok(err)
	var cert []byte
	s.wait("the certificate", func() error {
		r, err := requests.Get(s.t.Context(), s.ns, metav1.GetOptions{})
		if err == nil && len(r.Status.Certificate) == 0 {
			return fmt.Errorf("%v", r.Status)
		}
		cert = r.Status.Certificate
		return err
	})
	keyDER, err := x509.MarshalECPrivateKey(key)
	s.ok(err)
	conf := &rest.Config{Host: s.config.Host, QPS: -1, TLSClientConfig: rest.TLSClientConfig{
		CAFile: s.path("ca.crt"), CertData: cert, KeyData: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}}
	client, err := kubernetes.NewForConfig(conf)
	s.ok(err)
	who, err := client.AuthenticationV1().SelfSubjectReviews().Create(s.t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	s.ok(err)
	if who.Status.UserInfo.Username != name {
		s.t.Errorf("the certificate is of %s", who.Status.UserInfo.Username)
	}
}

// driveForgotten lets a request that was denied long ago go.
func driveForgotten(s *space) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: s.ns}}, newKey(s.t))
	s.ok(err)
	requests := s.admin.CertificatesV1().CertificateSigningRequests()
	r, err := requests.Create(s.t.Context(), &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: "nobody.test/none", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
	}}, metav1.CreateOptions{})
	s.ok(err)
	ago := metav1.NewTime(time.Now().Add(-2 * time.Hour))
	r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue, Reason: "Test", LastUpdateTime: ago, LastTransitionTime: ago}}
	_, err = requests.UpdateApproval(s.t.Context(), r.Name, r, metav1.UpdateOptions{})
	s.ok(err)
	s.wait("the request to go", func() error {
		_, err := requests.Get(s.t.Context(), s.ns, metav1.GetOptions{})
		return gone(err)
	})
}

// driveAccountTokens asks for a token in a secret, and lets it go with its account.
func driveAccountTokens(s *space) {
	core := s.admin.CoreV1()
	_, err := core.ServiceAccounts(s.ns).Create(s.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{})
	s.ok(err)
	_, err = core.Secrets(s.ns).Create(s.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "robot"}}, Type: corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	s.ok(err)
	s.wait("the token", func() error {
		x, err := core.Secrets(s.ns).Get(s.t.Context(), "token", metav1.GetOptions{})
		if err == nil && (strings.Count(string(x.Data["token"]), ".") != 2 || len(x.Data["ca.crt"]) == 0 || string(x.Data["namespace"]) != s.ns) {
			return fmt.Errorf("it holds %d entries", len(x.Data))
		}
		return err
	})
	s.ok(core.ServiceAccounts(s.ns).Delete(s.t.Context(), "robot", metav1.DeleteOptions{}))
	s.wait("the end of the token", func() error {
		_, err := core.Secrets(s.ns).Get(s.t.Context(), "token", metav1.GetOptions{})
		return gone(err)
	})
}

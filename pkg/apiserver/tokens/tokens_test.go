package tokens

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// world is the part of an Env that an Authority reads. What it lacks panics.
type world struct {
	kind.Env
	objects map[schema.GroupResource]kind.Object
}

func (w world) Get(_ context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	if o := w.objects[gr]; o != nil && o.GetNamespace() == namespace && o.GetName() == name {
		return o, nil
	}
	return nil, apierrors.NewNotFound(gr, name)
}

func (w world) GetFresh(ctx context.Context, gr schema.GroupResource, namespace, name string) (kind.Object, error) {
	return w.Get(ctx, gr, namespace, name)
}

// people is a world with one account, a pod of it, and the pod's node.
func people() world {
	return world{objects: map[schema.GroupResource]kind.Object{
		serviceAccounts: &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "robot", UID: "u1"}},
		podsGR:          &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", UID: "u2"}, Spec: corev1.PodSpec{ServiceAccountName: "robot", NodeName: "n"}},
		nodesGR:         &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u3"}},
	}}
}

func authority(t *testing.T, issuer string) *Authority {
	t.Helper()
	a, err := New(t.Context(), Config{Issuers: []string{issuer}, SigningKey: rig.WriteFile(t, t.TempDir(), "key", rig.NewKey(t))})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// noon is when every token of these tests is issued.
var noon = time.Unix(1_800_000_000, 0)

func issue(t *testing.T, a *Authority, w world, spec authenticationv1.TokenRequestSpec) *authenticationv1.TokenRequest {
	t.Helper()
	op := &kind.Op{Ctx: context.Background(), Env: w, Namespace: "a", Name: "robot", Now: noon}
	out, err := a.Request(op, "robot", &authenticationv1.TokenRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return out.(*authenticationv1.TokenRequest)
}

func TestATokenSaysWhoseItIs(t *testing.T) {
	a, w := authority(t, "https://k"), people()
	pod := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p", UID: "u2"}
	tr := issue(t, a, w, authenticationv1.TokenRequestSpec{BoundObjectRef: pod})
	r, ok, err := a.Verify(context.Background(), w, tr.Status.Token, nil, noon)
	if err != nil || !ok {
		t.Fatalf("ok %v, %v", ok, err)
	}
	u := r.User
	if u.GetName() != "system:serviceaccount:a:robot" || u.GetUID() != "u1" || strings.Join(u.GetGroups(), ",") != "system:serviceaccounts,system:serviceaccounts:a" {
		t.Errorf("the token is of %+v", u)
	}
	for key, want := range map[string]string{
		"authentication.kubernetes.io/pod-name": "p", "authentication.kubernetes.io/pod-uid": "u2",
		"authentication.kubernetes.io/node-name": "n", "authentication.kubernetes.io/node-uid": "u3",
	} {
		if got := strings.Join(u.GetExtra()[key], ","); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

func TestATokenHoldsForItsTimeAndAudience(t *testing.T) {
	a, w := authority(t, "https://k"), people()
	plain := issue(t, a, w, authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(600))})
	vault := issue(t, a, w, authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}})
	if got := plain.Status.ExpirationTimestamp.Time; !got.Equal(noon.Add(600 * time.Second)) {
		t.Errorf("said to expire at %v", got)
	}
	for _, c := range []struct {
		token     string
		audiences []string
		after     time.Duration
		want      string // "" = it holds
	}{
		{plain.Status.Token, nil, 599 * time.Second, ""},
		{plain.Status.Token, nil, 600*time.Second + leeway + time.Second, "expired"},
		{plain.Status.Token, nil, -leeway - time.Second, "not valid yet"},
		{plain.Status.Token, []string{"vault"}, 0, `token audiences ["https://k"] is invalid for the target audiences ["vault"]`},
		{vault.Status.Token, nil, 0, `token audiences ["vault"] is invalid for the target audiences ["https://k"]`},
		{vault.Status.Token, []string{"other", "vault"}, 0, ""},
	} {
		r, ok, err := a.Verify(context.Background(), w, c.token, c.audiences, noon.Add(c.after))
		if c.want == "" && (err != nil || !ok || len(r.Audiences) != 1) || c.want != "" && (ok || err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("after %v for %q: ok %v, %v; want %q", c.after, c.audiences, ok, err, c.want)
		}
	}
}

func TestATokenDiesWithWhatItIsBoundTo(t *testing.T) {
	a := authority(t, "https://k")
	pod := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p"}
	token := issue(t, a, people(), authenticationv1.TokenRequestSpec{BoundObjectRef: pod}).Status.Token
	for name, change := range map[string]func(w world){
		"no account":  func(w world) { delete(w.objects, serviceAccounts) },
		"new account": func(w world) { w.objects[serviceAccounts].SetUID("other") },
		"no pod":      func(w world) { delete(w.objects, podsGR) },
		"new pod":     func(w world) { w.objects[podsGR].SetUID("other") },
	} {
		w := people()
		change(w)
		if _, ok, err := a.Verify(context.Background(), w, token, nil, noon); ok || err == nil {
			t.Errorf("%s: ok %v, %v", name, ok, err)
		}
	}
}

func TestForeignAndForgedTokens(t *testing.T) {
	a, w := authority(t, "https://k"), people()
	token := issue(t, a, w, authenticationv1.TokenRequestSpec{}).Status.Token
	// Another issuer's token is left to others; one that claims to be ours must hold.
	if _, ok, err := authority(t, "https://other").Verify(context.Background(), w, token, nil, noon); ok || err != nil {
		t.Errorf("another issuer's token: ok %v, %v", ok, err)
	}
	if _, ok, err := authority(t, "https://k").Verify(context.Background(), w, token, nil, noon); ok || err == nil {
		t.Errorf("a token by another key: ok %v, %v", ok, err)
	}
	part := strings.Split(token, ".")
	mine := issue(t, a, w, authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}).Status.Token
	if _, ok, err := a.Verify(context.Background(), w, part[0]+"."+strings.Split(mine, ".")[1]+"."+part[2], []string{"vault"}, noon); ok || err == nil {
		t.Errorf("claims with another's signature: ok %v, %v", ok, err)
	}
	if _, ok, err := a.Verify(context.Background(), w, "not.a.token", nil, noon); ok || err != nil {
		t.Errorf("no token at all: ok %v, %v", ok, err)
	}
}

func TestTokenRequestsOutOfBounds(t *testing.T) {
	a, w := authority(t, "https://k"), people()
	op := &kind.Op{Ctx: context.Background(), Env: w, Namespace: "a", Name: "robot", Now: noon}
	for want, spec := range map[string]authenticationv1.TokenRequestSpec{
		"may not specify a duration less than 10 minutes":      {ExpirationSeconds: new(int64(599))},
		"may not specify a duration larger than 2^32 seconds":  {ExpirationSeconds: new(int64(1<<32 + 1))},
		"cannot bind token to object of type":                  {BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "ConfigMap", APIVersion: "v1", Name: "c"}},
		"the UID in the bound object reference (u9) does not ": {BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p", UID: "u9"}},
	} {
		if _, err := a.Request(op, "robot", &authenticationv1.TokenRequest{Spec: spec}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answered %v, want %q", err, want)
		}
	}
}

func published(a *Authority) int {
	set, _ := a.Keys()
	return len(set.Keys)
}

// TestRereadKeys changes the files of the keys while an authority is at work.
func TestRereadKeys(t *testing.T) {
	a, w := authority(t, "https://k"), people()
	first := a.c.SigningKey
	issue := func() string {
		c := &Claims{Bound: Bound{Namespace: "a", ServiceAccount: Ref{Name: "robot", UID: "u1"}}}
		c.Subject, c.Audience = "system:serviceaccount:a:robot", []string{"https://k"}
		c.Expiry = jwt.NewNumericDate(time.Now().Add(time.Hour))
		token, err := a.Sign(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := func(token string) bool {
		_, ok, _ := a.Verify(context.Background(), w, token, nil, time.Now())
		return ok
	}
	old := issue()
	if a.Reread() {
		t.Error("keys that did not change are taken over")
	}
	before, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a.Reread() || !good(old) {
		t.Error("a broken file is taken over")
	}
	next, err := os.ReadFile(authority(t, "https://k").c.SigningKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, append(next, before...), 0o600); err != nil {
		t.Fatal(err)
	}
	if !a.Reread() || good(old) || !good(issue()) {
		t.Error("a new key is not taken over")
	}
	verify := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(verify, before, 0o600); err != nil {
		t.Fatal(err)
	}
	a.c.KeyFiles = []string{verify}
	if !a.Reread() || !good(old) || published(a) != 2 {
		t.Error("an old key to verify by is not taken over")
	}
}

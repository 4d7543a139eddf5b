package tokens

import (
	"context"
	"encoding/base64"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	externaljwt "k8s.io/externaljwt/apis/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// outside is an authority whose keys are in a signer.
func outside(t *testing.T, v *rig.Signer) *Authority {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	v.Serve(t, socket)
	a, err := New(t.Context(), Config{Issuers: []string{"https://k"}, Endpoint: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestExternalSigner(t *testing.T) {
	v, w := rig.NewSigner(t), people()
	v.MaxAge = 7200
	a := outside(t, v)
	pod := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p"}
	tr := issue(t, a, w, authenticationv1.TokenRequestSpec{BoundObjectRef: pod, ExpirationSeconds: new(int64(usualLife))})
	r, ok, err := a.Verify(t.Context(), w, tr.Status.Token, nil, noon)
	if err != nil || !ok || r.User.GetName() != "system:serviceaccount:a:robot" {
		t.Fatalf("ok %v, %+v, %v", ok, r, err)
	}
	if v.Signed["iss"] != "https://k" || v.Signed["sub"] != "system:serviceaccount:a:robot" {
		t.Errorf("the signer saw %v", v.Signed)
	}
	// A pod's token lasts a year, or as long as the signer allows; asked for is what it is said to last.
	if got := int64(v.Signed["exp"].(float64)) - noon.Unix(); got != 7200 {
		t.Errorf("the token lasts %d s", got)
	}
	if got := *tr.Spec.ExpirationSeconds; got != usualLife {
		t.Errorf("the token is said to last %d s", got)
	}
	if got := *issue(t, a, w, authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(86400))}).Spec.ExpirationSeconds; got != 7200 {
		t.Errorf("a token is said to last %d s, which is more than the signer allows", got)
	}
	part := strings.Split(tr.Status.Token, ".")
	forged := part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://k","sub":"system:serviceaccount:a:other"}`)) + "." + part[2]
	if _, ok, err := a.Verify(t.Context(), w, forged, nil, noon); ok || err == nil {
		t.Errorf("other claims under the signature: ok %v, %v", ok, err)
	}
}

// TestExternalKeys changes the signer's keys while an authority is at work.
func TestExternalKeys(t *testing.T) {
	v, w := rig.NewSigner(t), people()
	a := outside(t, v)
	old := issue(t, a, w, authenticationv1.TokenRequestSpec{}).Status.Token
	good := func(token string) bool {
		_, ok, _ := a.Verify(t.Context(), w, token, nil, noon)
		return ok
	}
	a.external.begun = time.Time{}
	v.Add(t, "two")
	if !good(issue(t, a, w, authenticationv1.TokenRequestSpec{}).Status.Token) || !good(old) || published(a) != 2 {
		t.Error("a new key is not taken over when a token names it")
	}
	if !a.Reread() || a.Reread() {
		t.Error("that the keys changed is not told once")
	}
	before := v.Fetched
	for range 20 {
		token := strings.Split(old, ".")
		head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"made up","typ":"JWT"}`))
		if good(head + "." + token[1] + "." + token[2]) {
			t.Fatal("a token by nobody's key is good")
		}
	}
	if v.Fetched > before+1 {
		t.Errorf("20 made up tokens made %d questions", v.Fetched-before)
	}
	// What is left out of discovery verifies, and does not sign.
	v.Change(func() { v.Hidden["one"] = true; delete(v.Keys, "two"); v.By = "one" })
	a.external.begun = time.Time{}
	if err := a.external.again(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if !good(old) || published(a) != 0 {
		t.Errorf("a key apart from discovery: good %v, published %d", good(old), published(a))
	}
	refused(t, a, "excludes from discovery")
	// A signer that is away, or says what cannot be, takes nothing away.
	short := &externaljwt.Key{KeyId: "x", Key: []byte("no key")}
	for want, f := range map[string]func(){
		"away":                 func() { v.Down = errors.New("away") },
		"refresh_hint_seconds": func() { v.Down, v.Hint = nil, 0 },
		`reading its key "x"`:  func() { v.Hint, v.Answer = 60, []*externaljwt.Key{short} },
		"a name of 0 bytes":    func() { v.Hint, v.Down, v.Answer = 60, nil, []*externaljwt.Key{{}} },
		"a name of 1025 bytes": func() {
			v.Hint, v.Down, v.Answer = 60, nil, []*externaljwt.Key{{KeyId: strings.Repeat("k", 1025)}}
		},
	} {
		v.Change(func() { v.Down, v.Hint, v.Answer = nil, 60, nil })
		v.Change(f)
		a.external.begun = time.Time{}
		if err := a.external.again(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answered %v, want %q", err, want)
		}
		if !good(old) {
			t.Fatalf("%s: the old keys are gone", want)
		}
	}
}

// TestExternalRefresh holds that keys are fetched as often as their signer says.
func TestExternalRefresh(t *testing.T) {
	v := rig.NewSigner(t)
	v.Hint = 1
	a := outside(t, v)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	v.Add(t, "two")
	for deadline := time.Now().Add(10 * time.Second); published(a) != 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new key was not fetched")
		}
	}
	if _, age := a.Keys(); age != time.Second {
		t.Errorf("the keys may be kept for %v", age)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func refused(t *testing.T, a *Authority, want string) {
	t.Helper()
	op := &kind.Op{Ctx: t.Context(), Env: people(), Namespace: "a", Name: "robot", Now: noon}
	if _, err := a.Request(op, "robot", &authenticationv1.TokenRequest{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("answered %v, want %q", err, want)
	}
}

func TestExternalSignerGoneWrong(t *testing.T) {
	v := rig.NewSigner(t)
	a := outside(t, v)
	header := func(change func(h map[string]any)) func() {
		return func() {
			v.Header = map[string]any{"alg": "ES256", "kid": "one", "typ": "JWT"}
			change(v.Header)
		}
	}
	for want, f := range map[string]func(){
		`a field "jku"`:             header(func(h map[string]any) { h["jku"] = "https://evil" }),
		"typ is at+jwt":             header(func(h map[string]any) { h["typ"] = "at+jwt" }),
		"typ is <nil>":              header(func(h map[string]any) { delete(h, "typ") }),
		"kid has 0 bytes":           header(func(h map[string]any) { delete(h, "kid") }),
		"kid has 1025 bytes":        header(func(h map[string]any) { h["kid"] = strings.Repeat("k", 1025) }),
		`alg is "none"`:             header(func(h map[string]any) { h["alg"] = "none" }),
		`alg is "HS256"`:            header(func(h map[string]any) { h["alg"] = "HS256" }),
		"does not tell of: \"two\"": header(func(h map[string]any) { h["kid"] = "two" }),
		"a wrong signature":         func() { v.Spoil = func(s string) string { return "AAAA" + s[4:] } },
		"on strike":                 func() { v.Down = errors.New("on strike") },
	} {
		v.Change(func() { v.Header, v.Spoil, v.Down = nil, nil, nil })
		v.Change(f)
		refused(t, a, want)
	}
	v.Change(func() { v.Header, v.Down, v.Spoil = nil, nil, func(s string) string { return s + "." + s } })
	refused(t, a, "a wrong signature")
}

// TestExternalSignerAtTheStart holds that a server waits for its signer, and refuses one that it cannot work with.
func TestExternalSignerAtTheStart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	late := rig.NewSigner(t)
	go func() {
		time.Sleep(300 * time.Millisecond)
		late.Serve(t, socket)
	}()
	a, err := New(t.Context(), Config{Issuers: []string{"https://k"}, Endpoint: socket, MaxLife: 7200 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, err := New(t.Context(), Config{Issuers: []string{"https://k"}, Endpoint: socket, MaxLife: 7201 * time.Second}); err == nil || !strings.Contains(err.Error(), "--service-account-max-token-expiration 2h0m1s is longer") {
		t.Errorf("answered %v", err)
	}
	late.Change(func() { late.MaxAge = 599 })
	if _, err := New(t.Context(), Config{Issuers: []string{"https://k"}, Endpoint: socket}); err == nil || !strings.Contains(err.Error(), "at least 600 s are needed") {
		t.Errorf("answered %v", err)
	}
	gone, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := New(gone, Config{Issuers: []string{"https://k"}, Endpoint: filepath.Join(t.TempDir(), "s")}); err == nil || !strings.Contains(err.Error(), "--service-account-signing-endpoint") {
		t.Errorf("answered %v", err)
	}
}

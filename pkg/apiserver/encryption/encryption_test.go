package encryption

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kmsapi "k8s.io/kms/apis/v2"
)

var (
	one = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("1"), 32))
	two = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("2"), 32))
)

// rule is one entry of the file.
func rule(resources string, providers ...string) string {
	return "- resources: [" + resources + "]\n  providers:\n  - " + strings.Join(providers, "\n  - ") + "\n"
}

func with(kind, name, secret string) string {
	return fmt.Sprintf("%s: {keys: [{name: %s, secret: %s}]}", kind, name, secret)
}

func put(t *testing.T, file string, rules ...string) {
	t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n" + strings.Join(rules, "")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var folders = map[string]schema.GroupResource{
	"secrets/": {Resource: "secrets"}, "configmaps/": {Resource: "configmaps"}, "services/specs/": {Resource: "services"},
	"services/endpoints/": {Resource: "endpoints"}, "deployments/": {Group: "apps", Resource: "deployments"},
}

func opened(t *testing.T, rules ...string) (*Room, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	put(t, file, rules...)
	r, err := New(Config{File: file, Reload: true, Folders: folders})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, file
}

// seal answers what lies in etcd.
func seal(t *testing.T, r *Room, key string) []byte {
	t.Helper()
	b, err := r.Seal(t.Context(), key, "/registry/"+key, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open answers what is read, "stale" after it if it should be written again, or the error.
func open(r *Room, key string, stored []byte) string {
	plain, stale, _, err := r.Open(context.Background(), key, "/registry/"+key, stored)
	switch {
	case err != nil:
		return "error: " + err.Error()
	case stale:
		return string(plain) + " stale"
	}
	return string(plain)
}

func TestProviders(t *testing.T) {
	for kind, prefix := range map[string]string{"aescbc": "k8s:enc:aescbc:v1:k1:", "aesgcm": "k8s:enc:aesgcm:v1:k1:", "secretbox": "k8s:enc:secretbox:v1:k1:"} {
		r, _ := opened(t, rule("secrets", with(kind, "k1", one), "identity: {}"))
		stored := seal(t, r, "secrets/default/s")
		if !bytes.HasPrefix(stored, []byte(prefix)) || bytes.Contains(stored, []byte("plain")) {
			t.Errorf("%s stores %q", kind, stored)
		}
		if got := open(r, "secrets/default/s", stored); got != "plain" {
			t.Errorf("%s reads %s", kind, got)
		}
		if got := open(r, "secrets/default/s", []byte("plain")); got != "plain stale" {
			t.Errorf("%s reads what was there before: %s", kind, got)
		}
		stored[len(stored)-1] ^= 1
		if got := open(r, "secrets/default/s", stored); kind != "aescbc" && !strings.HasPrefix(got, "error: ") {
			t.Errorf("%s takes a damaged value for %s", kind, got)
		}
		if kind == "aesgcm" {
			if got := open(r, "secrets/default/other", seal(t, r, "secrets/default/s")); !strings.HasPrefix(got, "error: ") {
				t.Errorf("a value of another place is taken for %s", got)
			}
		}
	}
}

func TestRotation(t *testing.T) {
	key := "secrets/default/s"
	r, file := opened(t, rule("secrets", with("aesgcm", "old", one)))
	before := seal(t, r, key)
	put(t, file, rule("secrets", "aesgcm: {keys: [{name: new, secret: "+two+"}, {name: old, secret: "+one+"}]}"))
	if changed, err := r.read(); !changed || err != nil {
		t.Fatalf("the new file: %v, %v", changed, err)
	}
	if got := open(r, key, before); got != "plain stale" {
		t.Errorf("the old value: %s", got)
	}
	after := seal(t, r, key)
	put(t, file, rule("secrets", "aesgcm: {keys: [{name: broken, secret: x}]}"))
	if _, err := r.read(); err == nil {
		t.Error("a broken file is taken over")
	}
	if got := open(r, key, after); got != "plain" {
		t.Errorf("after a broken file: %s", got)
	}
	put(t, file, rule("secrets", with("aesgcm", "new", two)))
	if _, err := r.read(); err != nil {
		t.Fatal(err)
	}
	if got := open(r, key, before); !strings.HasPrefix(got, "error: ") {
		t.Errorf("the value of a dropped key: %s", got)
	}
}

func TestWhichResources(t *testing.T) {
	r, _ := opened(t,
		rule("configmaps", "identity: {}"), rule("secrets, pandas.bears.example", with("aescbc", "named", one)),
		rule("'*.apps'", with("aescbc", "group", one)), rule("'*.*'", with("aescbc", "all", two)))
	for key, want := range map[string]string{
		"secrets/ns/s": "named", "bears.example/pandas/ns/p": "named", "deployments/ns/d": "group", "services/specs/ns/x": "all", "services/endpoints/ns/x": "all",
		"bears.example/trees/ns/p": "all", "configmaps/ns/c": "", "masterleases/10.0.0.1": "",
	} {
		got := ""
		if parts := strings.Split(string(seal(t, r, key)), ":"); len(parts) > 4 {
			got = parts[4]
		}
		if got != want {
			t.Errorf("%s is sealed with %q, want %q", key, got, want)
		}
	}
}

func TestWrongFiles(t *testing.T) {
	for name, rules := range map[string][]string{
		"short key": {rule("secrets", with("aescbc", "k", "c2hvcnQ="))},
		"masked":    {rule("'*.*'", "identity: {}"), rule("secrets", with("aescbc", "k", one))},
		"kms v1":    {rule("secrets", "kms: {name: a, endpoint: 'unix:///tmp/a', timeout: 3s}")},
		"nothing":   {rule("secrets", "{}")},
	} {
		file := filepath.Join(t.TempDir(), "e.yaml")
		put(t, file, rules...)
		if _, err := New(Config{File: file}); err == nil || !strings.Contains(err.Error(), "--encryption-provider-config") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var none *Room
	if got := open(none, "secrets/ns/s", []byte("k8s:enc:aescbc:v1:k:xx")); !strings.Contains(got, "encrypted") {
		t.Errorf("without a configuration: %s", got)
	}
}

// turner is a key service that turns bits over.
type turner struct {
	kmsapi.UnimplementedKeyManagementServiceServer
	key  string
	down bool
}

func (s *turner) Status(context.Context, *kmsapi.StatusRequest) (*kmsapi.StatusResponse, error) {
	if s.down {
		return nil, errors.New("down")
	}
	return &kmsapi.StatusResponse{Version: "v2", Healthz: "ok", KeyId: s.key}, nil
}

func flip(b []byte) []byte {
	out := bytes.Clone(b)
	for i := range out {
		out[i] ^= 0xff
	}
	return out
}

func (s *turner) Encrypt(_ context.Context, r *kmsapi.EncryptRequest) (*kmsapi.EncryptResponse, error) {
	return &kmsapi.EncryptResponse{Ciphertext: flip(r.Plaintext), KeyId: s.key}, nil
}

func (s *turner) Decrypt(_ context.Context, r *kmsapi.DecryptRequest) (*kmsapi.DecryptResponse, error) {
	if s.down {
		return nil, errors.New("down")
	}
	return &kmsapi.DecryptResponse{Plaintext: flip(r.Ciphertext)}, nil
}

func TestKeyService(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kms.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s, g := &turner{key: "1"}, grpc.NewServer()
	kmsapi.RegisterKeyManagementServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	provider := "kms: {apiVersion: v2, name: safe, endpoint: 'unix://" + socket + "', timeout: 3s}"
	r, _ := opened(t, rule("secrets", provider, "identity: {}"))
	if err := r.Healthy(); err != nil {
		t.Fatal(err)
	}
	key := "secrets/default/s"
	first := seal(t, r, key)
	if !bytes.HasPrefix(first, []byte("k8s:enc:kms:v2:safe:")) || bytes.Contains(first, []byte("plain")) || open(r, key, first) != "plain" {
		t.Errorf("stored %q, read %s", first, open(r, key, first))
	}
	k := r.now.Load().kms[0]
	s.key = "2"
	k.ask(t.Context())
	if got := open(r, key, first); got != "plain stale" {
		t.Errorf("after the service's key changed: %s", got)
	}
	second := seal(t, r, key)
	s.down = true
	k.ask(t.Context())
	if r.Healthy() == nil {
		t.Error("a service that is down is healthy")
	}
	if got := open(r, key, second); got != "plain" {
		t.Errorf("while the service is down: %s", got)
	}
	seal(t, r, key)
	other, _ := opened(t, rule("secrets", provider, "identity: {}"))
	if _, _, wait, err := other.Open(t.Context(), key, "/registry/"+key, second); err == nil || !wait {
		t.Errorf("a server that never saw the key: %v, wait %v", err, wait)
	}
}

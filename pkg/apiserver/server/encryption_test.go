package server

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

// TestEncryptionAtRest reads and lists what lies sealed in etcd, and seals what was not when it is written again.
func TestEncryptionAtRest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - secretbox: {keys: [{name: one, secret: " + key + "}]}\n  - identity: {}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, at := rig.NewEtcd(t)
	s := start(t, func(c *Config) { c.EncryptionFile, c.EtcdServers = file, []string{at} })
	plain, err := store.New(store.Config{Endpoints: []string{at}})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close() //nolint:errcheck // nothing is pending
	raw := func(name string) string {
		t.Helper()
		kv, err := plain.Get(t.Context(), "secrets/default/"+name)
		if err != nil {
			t.Fatal(err)
		}
		return string(kv.Value)
	}
	const all = "/api/v1/namespaces/default/secrets"
	if code, _, b := s.Try(t, "POST", all, `{"metadata":{"name":"s"},"stringData":{"k":"hunter2"}}`, nil); code != http.StatusCreated {
		t.Fatalf("creating: %d %s", code, b)
	}
	if got := raw("s"); !strings.HasPrefix(got, "k8s:enc:secretbox:v1:one:") || strings.Contains(got, "hunter2") {
		t.Errorf("etcd holds %q", got)
	}
	for _, path := range []string{all, all + "/s"} {
		if code, _, b := s.Try(t, "GET", path, "", nil); code != http.StatusOK || !bytes.Contains(b, []byte("aHVudGVyMg==")) {
			t.Errorf("reading %s: %d %s", path, code, b)
		}
	}
	// What was stored before the configuration is sealed by a write that changes nothing.
	kv, err := s.store.Get(t.Context(), "secrets/default/s")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := plain.Update(t.Context(), "secrets/default/s", kv.Value, kv.Rev, 0); err != nil {
		t.Fatal(err)
	}
	_, _, b := s.Try(t, "GET", all+"/s", "", nil)
	if got := raw("s"); !store.IsProto([]byte(got)) {
		t.Fatalf("etcd holds %q", got)
	}
	if code, _, b := s.Try(t, "PUT", all+"/s", string(b), nil); code != http.StatusOK {
		t.Errorf("writing again: %d %s", code, b)
	}
	if got := raw("s"); !strings.HasPrefix(got, "k8s:enc:secretbox:v1:one:") {
		t.Errorf("etcd still holds %q", got)
	}
}

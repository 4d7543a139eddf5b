package encryption

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
)

// FuzzConfiguration reads anything as an EncryptionConfiguration: it is refused without a word of a key, or what it seals
// it opens, and nothing that lies in etcd makes it fall.
func FuzzConfiguration(f *testing.F) {
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	for _, s := range []string{
		"", "a: [", "kind: Policy\n", head, head + rule("secrets", "identity: {}"), head + rule("secrets", with("aescbc", "a", one), "identity: {}"),
		head + rule("secrets, '*.apps', '*.*'", with("aesgcm", "a", one)), head + rule("configmaps", with("secretbox", "a:b", one)),
		head + rule("secrets", with("aescbc", "a", "c2hvcnQ=")), head + rule("'*.*'", with("aescbc", "a", two)) + rule("secrets", "identity: {}"),
		head + rule("secrets", "kms: {apiVersion: v2, name: k, endpoint: 'unix:///none.sock'}"), head + rule("secrets", "{}"), head + "- {}",
	} {
		f.Add([]byte(s), []byte("k8s:enc:aescbc:v1:a:x"))
	}
	f.Fuzz(func(t *testing.T, data, stored []byte) {
		conf, err := decode(data, true)
		if err == nil {
			for _, r := range conf.Resources {
				for _, p := range r.Providers {
					if p.KMS != nil {
						return // a service would be asked
					}
				}
			}
		}
		r := &rules{by: map[schema.GroupResource]value.Transformer{}, fold: folders}
		if err == nil {
			err = r.fill(t.Context(), conf)
		}
		if err != nil {
			for _, secret := range []string{one, two} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("a refusal shows a key: %v", err)
				}
			}
			return
		}
		room := &Room{}
		room.now.Store(r)
		for _, key := range []string{"secrets/a/b", "configmaps/a/b", "deployments/a/b", "x.io/ys/a/b", "masterleases/a"} {
			sealed, err := room.Seal(t.Context(), key, "/registry/"+key, stored)
			if err != nil {
				t.Fatalf("sealing %s under %q: %v", key, data, err)
			}
			again, stale, _, err := room.Open(t.Context(), key, "/registry/"+key, sealed)
			if err == nil && (stale || string(again) != string(stored)) {
				t.Errorf("%q opens as %q, stale %v, under %q", stored, again, stale, data)
			}
			if err != nil && room.Sealed(key) && !strings.HasPrefix(string(sealed), "k8s:enc:") {
				t.Errorf("%q cannot be opened under %q: %v", sealed, data, err)
			}
			_, _, _, _ = room.Open(t.Context(), key, "/registry/"+key, stored) // it may be anybody's
		}
	})
}

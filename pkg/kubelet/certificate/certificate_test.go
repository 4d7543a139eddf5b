package certificate

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestDueLeavesTimeToRenew(t *testing.T) {
	from := time.Unix(0, 0)
	to := from.Add(100 * time.Hour)
	if a, b := due(from, to, 0), due(from, to, 0.999999); a.Sub(from.Add(70*time.Hour)).Abs() > time.Second || b.Before(a) || !b.Before(from.Add(90*time.Hour)) {
		t.Error(a, b)
	}
}

func TestStoreMovesTheLink(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{"one", "two"} {
		if err := store(dir, "kubelet-client", []byte(text), time.Unix(int64(i), 0)); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(Current(dir, "kubelet-client"))
		if err != nil || string(raw) != text {
			t.Errorf("%q %v", raw, err)
		}
		if st, err := os.Stat(Current(dir, "kubelet-client")); err != nil || st.Mode().Perm() != 0o600 {
			t.Error("a key others may read:", st.Mode(), err)
		}
	}
	if files, _ := filepath.Glob(dir + "/*"); len(files) != 3 {
		t.Error(files)
	}
}

func TestUsable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if usable(path, time.Now()) {
		t.Error("a kubeconfig which is not there")
	}
	const head = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: {server: 'https://x'}}]\n"
	write(head + "users: [{name: u, user: {token: t}}]\n")
	if !usable(path, time.Now()) {
		t.Error("a token needs no certificate")
	}
	write(head + "users: [{name: u, user: {client-certificate: /no/such.pem, client-key: /no/such.pem}}]\n")
	if usable(path, time.Now()) {
		t.Error("its certificate is not there")
	}
}

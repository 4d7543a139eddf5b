package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// TestTwoServers runs two servers on one etcd: what one writes the other reads at once, both stand behind the service, and
// one that stops leaves it.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	_, at := rig.NewEtcd(t)
	on := func(ip string) func(*Config) {
		return func(c *Config) { c.EtcdServers, c.AdvertiseAddress = []string{at}, ip }
	}
	a := start(t, on("192.0.2.11"))
	var b *testServer
	addresses := func() string {
		var e corev1.Endpoints // none yet is as good as an empty one
		_, _, body := a.Try(t, "GET", "/api/v1/namespaces/default/endpoints/kubernetes", "", nil)
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatal(err)
		}
		var ips []string
		for _, s := range e.Subsets {
			for _, ad := range s.Addresses {
				ips = append(ips, ad.IP)
			}
		}
		return strings.Join(ips, " ")
	}
	await := func(want string) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for addresses() != want {
			if time.Now().After(deadline) {
				t.Fatalf("the service is at %q, want %q", addresses(), want)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	await("192.0.2.11")
	t.Run("together", func(t *testing.T) {
		b = start(t, on("192.0.2.12"))
		await("192.0.2.11 192.0.2.12")
		const path = "/api/v1/namespaces/default/configmaps"
		// Long enough for both ways in which a server learns what is new.
		for n, begun := 0, time.Now(); n < 40 || time.Since(begun) < 2*time.Second; n++ {
			from, to := a, b
			if n%2 == 1 {
				from, to = b, a
			}
			name := fmt.Sprint("c", n)
			from.Must(t, "POST", path, fmt.Sprintf(`{"metadata":{"name":%q}}`, name))
			if code, _, body := to.Try(t, "GET", path+"/"+name, "", nil); code != http.StatusOK {
				t.Fatalf("what one server wrote, the other does not know: %d %s", code, body)
			}
			to.Must(t, "DELETE", path+"/"+name, "")
			if code, _, _ := from.Try(t, "GET", path+"/"+name, "", nil); code != http.StatusNotFound {
				t.Fatalf("what one server deleted, the other still shows: %d", code)
			}
		}
	})
	await("192.0.2.11") // b has stopped
}

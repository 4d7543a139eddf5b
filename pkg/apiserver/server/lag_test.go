package server

import (
	"fmt"
	"strings"
	"testing"
)

// TestNothingToDoIsAskedOfEtcd changes an object there and back faster than the cache follows: a change that would be
// none against what the cache still shows must be made all the same.
func TestNothingToDoIsAskedOfEtcd(t *testing.T) {
	t.Parallel()
	s := start(t)
	const path = "/api/v1/namespaces/default/configmaps"
	patch := map[string]string{"Content-Type": "application/merge-patch+json"}
	s.Must(t, "POST", path, `{"metadata":{"name":"lag"},"data":{"v":"0"}}`)
	for n := range 200 {
		want := fmt.Sprintf(`{"data":{"v":"%d"}}`, n%2)
		code, _, b := s.Try(t, "PATCH", path+"/lag", want, patch)
		if code != 200 || !strings.Contains(string(b), fmt.Sprintf(`"v":"%d"`, n%2)) {
			t.Fatalf("change %d answered %d %s", n, code, b)
		}
		code, _, b = s.Try(t, "GET", path+"/lag", "", nil)
		if code != 200 || !strings.Contains(string(b), fmt.Sprintf(`"v":"%d"`, n%2)) {
			t.Fatalf("change %d was acknowledged, and then read was %d %s", n, code, b)
		}
		// The same without a read between, so that the cache has no time to follow.
		s.Try(t, "PATCH", path+"/lag", `{"data":{"v":"x"}}`, patch)
		s.Try(t, "PATCH", path+"/lag", want, patch)
		if _, _, b = s.Try(t, "GET", path+"/lag", "", nil); !strings.Contains(string(b), fmt.Sprintf(`"v":"%d"`, n%2)) {
			t.Fatalf("the last change of round %d is lost: %s", n, b)
		}
	}
}

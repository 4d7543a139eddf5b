package scheduler

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// A list that is forbidden holds everything up; readiness names the resource and the error, and the scheduler goes on when it may.
func TestAListThatIsForbidden(t *testing.T) {
	var may atomic.Bool
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		resource := path.Base(r.URL.Path)
		switch {
		case resource == "poddisruptionbudgets" && !may.Load():
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"budgets are not for you"}`)
		case strings.HasPrefix(resource, "v1"): // no groups beyond those that every cluster has
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
		case r.URL.Query().Get("sendInitialEvents") != "":
			w.WriteHeader(http.StatusUnprocessableEntity)
		case r.URL.Query().Get("watch") != "":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			fmt.Fprint(w, `{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
		}
	}))
	defer api.Close()
	client := kubernetes.NewForConfigOrDie(&rest.Config{Host: api.URL, QPS: -1})
	s, _, _ := shell(t)
	s.core, s.apps, s.storage, s.resource, s.policy, s.scheduling = client.CoreV1(), client.AppsV1(), client.StorageV1(), client.ResourceV1(), client.PolicyV1(), client.SchedulingV1beta1()
	ctx, stop := context.WithCancel(t.Context())
	defer func() {
		stop()
		s.group.Wait()
	}()
	s.runWatches(ctx)
	ready := func(want string) {
		t.Helper()
		said := ""
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			w := httptest.NewRecorder()
			s.routes().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
			if said = strings.TrimSpace(w.Body.String()); said == want {
				return
			}
		}
		t.Fatalf("readiness says %q; want %q", said, want)
	}
	ready("the caches are not filled yet: poddisruptionbudgets: budgets are not for you")
	may.Store(true)
	ready("ok")
}

package server

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
	"github.com/sextant-k8s/sextant/pkg/apiserver/store"
)

const (
	allEvents = "/api/v1/namespaces/default/events"
	oneEvent  = `{"metadata":{"name":%q},"involvedObject":{"namespace":"default"},"reason":"r","source":{"component":"c"},"message":"m"}`
)

// revisionOf is the resourceVersion of an object or list.
func revisionOf(t *testing.T, b []byte) int64 {
	t.Helper()
	var o metav1.PartialObjectMetadataList
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(o.ResourceVersion, 10, 64)
	if err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return n
}

// raw opens an etcd beside the server.
func raw(t *testing.T, at string) *store.Store {
	t.Helper()
	s, err := store.New(store.Config{Endpoints: []string{at}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // nothing is pending
	return s
}

// lies tells whether a key is in an etcd.
func lies(t *testing.T, s *store.Store, key string) bool {
	t.Helper()
	_, err := s.Get(t.Context(), key)
	if err != nil && !errors.Is(err, store.ErrMissing) {
		t.Fatal(err)
	}
	return err == nil
}

// told is what a watch tells, one event after the other: its type and the object's name.
type told chan [2]string

func watchFrom(t *testing.T, s *testServer, path string, rev int64) told {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("%s%s?watch=1&resourceVersion=%d", s.URL, path, rev), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+rig.AdminToken)
	resp, err := s.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	c := make(told, 1000)
	go func() {
		defer close(c)
		defer resp.Body.Close() //nolint:errcheck // only read
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			var ev struct {
				Type   string
				Object metav1.PartialObjectMetadata
			}
			if json.Unmarshal(lines.Bytes(), &ev) == nil {
				c <- [2]string{ev.Type, ev.Object.Name}
			}
		}
	}()
	return c
}

func (c told) next(t *testing.T) (kind, name string) {
	t.Helper()
	select {
	case e, ok := <-c:
		if !ok {
			t.Fatal("the watch ended")
		}
		return e[0], e[1]
	case <-time.After(40 * time.Second):
		t.Fatal("the watch tells nothing more")
	}
	return "", ""
}

// relay stands before an etcd, and passes on what that says as much later as is told it.
func relay(t *testing.T, at string) (url string, late *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // it takes no more connections
	late = new(atomic.Int64)
	pass := func(client net.Conn) {
		defer client.Close() //nolint:errcheck // nothing waits to be written
		etcd, err := net.Dial("tcp", strings.TrimPrefix(at, "http://"))
		if err != nil {
			return
		}
		defer etcd.Close() //nolint:errcheck // nothing waits to be written
		go func() {
			_, _ = io.Copy(etcd, client) // either end may go
			_ = etcd.Close()
		}()
		type said struct {
			b    []byte
			when time.Time
		}
		way := make(chan said, 10000)
		go func() {
			defer close(way)
			for {
				b := make([]byte, 64<<10)
				n, err := etcd.Read(b)
				if err != nil {
					return
				}
				way <- said{b[:n], time.Now().Add(time.Duration(late.Load()))}
			}
		}()
		for s := range way {
			time.Sleep(time.Until(s.when))
			if _, err := client.Write(s.b); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go pass(c)
		}
	}()
	return "http://" + l.Addr().String(), late
}

// TestResourcesInAnEtcdOfTheirOwn runs two servers on one pair of etcds: each resource lies where it is to lie, has the
// revisions of that etcd, and is read as freshly as any.
func TestResourcesInAnEtcdOfTheirOwn(t *testing.T) {
	t.Parallel()
	_, most := rig.NewEtcd(t)
	_, own := rig.NewEtcd(t)
	file := rig.WriteFile(t, t.TempDir(), "encryption.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, events]\n  providers:\n"+
		"  - secretbox: {keys: [{name: one, secret: "+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))+"}]}\n")
	with := func(c *Config) {
		c.EtcdServers, c.EncryptionFile, c.EndpointReconciler = []string{most}, file, "none"
		c.EtcdOverrides = []string{"/events#" + own, "/podtemplates#" + own, "rbac.authorization.k8s.io/*#" + own, "apps/deployments#" + most}
		c.EtcdCompactionInterval = 500 * time.Millisecond
	}
	a := start(t, with)
	far, late := relay(t, own)
	b := start(t, with, func(c *Config) {
		for n, o := range c.EtcdOverrides {
			c.EtcdOverrides[n] = strings.ReplaceAll(o, own, far)
		}
	})
	mostRaw, ownRaw := raw(t, most), raw(t, own)
	for range 300 { // so that the revisions of both are far apart
		a.Must(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"generateName":"time-goes-on-"}}`)
	}
	before := revisionOf(t, a.Must(t, "GET", allEvents, ""))
	w := watchFrom(t, b, allEvents, before)
	for n := range 50 {
		name := fmt.Sprint("e-", n)
		at := revisionOf(t, a.Must(t, "POST", allEvents, fmt.Sprintf(oneEvent, name)))
		got := revisionOf(t, b.Must(t, "GET", allEvents+"/"+name, ""))
		list := revisionOf(t, b.Must(t, "GET", "/apis/events.k8s.io/v1/namespaces/default/events", ""))
		if at != got || list < at || at <= before {
			t.Fatalf("written at %d, read at %d, listed at %d, began at %d", at, got, list, before)
		}
		if kind, of := w.next(t); kind != "ADDED" || of != name {
			t.Fatalf("told %s %s, not of %s", kind, of, name)
		}
	}
	if now, of := revisionOf(t, a.Must(t, "GET", "/api/v1/namespaces/default/configmaps?limit=1", "")), revisionOf(t, a.Must(t, "GET", allEvents, "")); now-of < 100 {
		t.Errorf("config maps are at %d, events at %d", now, of)
	}
	a.Must(t, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", `{"metadata":{"name":"watcher"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["list"]}]}`)
	for key, want := range map[string]bool{"events/default/e-0": true, "clusterroles/watcher": true, "namespaces/default": false} {
		if lies(t, ownRaw, key) != want || lies(t, mostRaw, key) == want {
			t.Errorf("%s: own %v, most %v", key, lies(t, ownRaw, key), lies(t, mostRaw, key))
		}
	}
	if kv, err := ownRaw.Get(t.Context(), "events/default/e-0"); err != nil || !strings.HasPrefix(string(kv.Value), "k8s:enc:secretbox:v1:one:") {
		t.Errorf("etcd holds %q, %v", kv.Value, err)
	}
	// A right that is granted at one server counts at the other at once, wherever it lies.
	const bot = "system:serviceaccount:default:default"
	late.Store(int64(150 * time.Millisecond))
	for n := range 3 {
		binding := fmt.Sprint("b-", n)
		asBot := map[string]string{"Impersonate-User": bot}
		within(t, 20*time.Second, "a right that was taken counts no more", func() bool {
			code, _, _ := b.Try(t, "GET", "/api/v1/pods", "", asBot)
			return code == http.StatusForbidden
		})
		a.Must(t, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", fmt.Sprintf(`{"metadata":{"name":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"watcher"},"subjects":[{"kind":"ServiceAccount","name":"default","namespace":"default"}]}`, binding))
		if code, _, body := b.Try(t, "GET", "/api/v1/pods", "", asBot); code != http.StatusOK {
			t.Fatalf("with a right: %d %s", code, body)
		}
		b.Must(t, "DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/"+binding, "")
	}
	late.Store(0)
	t.Run("history ends", func(t *testing.T) {
		for i := range 3 {
			a.Must(t, "POST", "/api/v1/namespaces/default/podtemplates", fmt.Sprintf(`{"metadata":{"name":"t%d"},"template":{"spec":{"containers":[{"name":"c","image":"i"}]}}}`, i))
		}
		var first metav1.PartialObjectMetadataList
		if err := json.Unmarshal(a.Must(t, "GET", "/api/v1/namespaces/default/podtemplates?limit=1", ""), &first); err != nil {
			t.Fatal(err)
		}
		within(t, 20*time.Second, "the version is gone", func() bool {
			a.Must(t, "POST", allEvents, fmt.Sprintf(oneEvent, fmt.Sprint("x-", time.Now().UnixNano())))
			code, _, _ := a.Try(t, "GET", "/api/v1/namespaces/default/podtemplates?limit=1&continue="+first.Continue, "", nil)
			return code == http.StatusGone
		})
	})
	t.Run("the rest", func(t *testing.T) {
		metrics := string(a.Must(t, "GET", "/metrics", ""))
		for _, line := range []string{`apiserver_storage_size_bytes{storage_cluster_id="etcd-0"}`, `apiserver_storage_size_bytes{storage_cluster_id="etcd-1"}`, `apiserver_resource_objects{group="",resource="events"}`} {
			if !strings.Contains(metrics, line) {
				t.Errorf("%s is not told", line)
			}
		}
		if s := string(a.Must(t, "GET", "/api/v1/componentstatuses", "")); !strings.Contains(s, `"etcd-0"`) || !strings.Contains(s, `"etcd-1"`) || strings.Contains(s, `"etcd-2"`) {
			t.Errorf("components are %s", s)
		}
		if s := string(a.Must(t, "GET", "/readyz?verbose", "")); !strings.Contains(s, "[+]etcd-override-0 ok") || !strings.Contains(s, "[+]etcd-override-readiness-0 ok") || strings.Contains(s, "override-1") {
			t.Errorf("ready: %s", s)
		}
		a.Must(t, "DELETE", allEvents, "")
		if left, err := ownRaw.List(t.Context(), "events/", "", 0, 0); err != nil || len(left.KVs) > 0 {
			t.Errorf("%d events are left, %v", len(left.KVs), err)
		}
	})
}

// TestAnEtcdOfSomeGone kills the etcd of events under a running server, starts another server without it, and starts it again.
func TestAnEtcdOfSomeGone(t *testing.T) {
	t.Parallel()
	_, most := rig.NewEtcd(t)
	db, own := rig.NewEtcd(t)
	with := func(c *Config) {
		c.EtcdServers, c.EtcdOverrides, c.EventTTL, c.EndpointReconciler = []string{most}, []string{"/events#" + own}, 10*time.Second, "none"
	}
	s := start(t, with)
	s.Must(t, "POST", allEvents, fmt.Sprintf(oneEvent, "before"))
	w := watchFrom(t, s, allEvents, 0)
	if kind, of := w.next(t); kind != "ADDED" || of != "before" {
		t.Fatalf("told %s %s", kind, of)
	}
	db.Kill()
	for _, path := range []string{"/readyz", "/livez", "/healthz"} {
		if code, _, b := s.Try(t, "GET", path+"?verbose", "", nil); code != 500 || !strings.Contains(string(b), "[-]etcd-override-0 failed: reason withheld") || !strings.Contains(string(b), "[+]etcd ok") {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
	if code, _, b := s.Try(t, "POST", allEvents, fmt.Sprintf(oneEvent, "lost"), nil); code < 500 {
		t.Errorf("an event was written: %d %s", code, b)
	}
	if code, _, b := s.Try(t, "GET", allEvents+"?resourceVersion=0", "", nil); code != 200 || !strings.Contains(string(b), `"before"`) {
		t.Errorf("what was read is gone: %d %s", code, b)
	}
	begun := time.Now()
	for range 20 {
		s.Must(t, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"generateName":"goes-on-"}}`)
		s.Must(t, "GET", "/api/v1/namespaces/default/configmaps?limit=1", "")
		if code, _, b := s.Try(t, "GET", "/api/v1/secrets", "", map[string]string{"Impersonate-User": "nobody"}); code != http.StatusForbidden {
			t.Fatalf("refused with %d %s", code, b)
		}
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("the rest took %v", took)
	}
	// A server that starts now serves all but events.
	second := begin(t, with)
	second.await(t, "GET", "/api/v1/namespaces/default/configmaps?limit=1", "", 30*time.Second)
	if code, _, b := second.Try(t, "GET", "/readyz?verbose", "", nil); code != 500 || !strings.Contains(string(b), "[-]informer-sync failed") || !strings.Contains(string(b), "[-]etcd-override-readiness-0 failed") {
		t.Errorf("it says %d %s", code, b)
	}
	db.Start(t)
	second.Ready(t, 30*time.Second)
	s.Ready(t, 30*time.Second)
	second.Must(t, "POST", allEvents, fmt.Sprintf(oneEvent, "after"))
	// The event's lease is that of its own etcd: it goes by itself, and the watch that began before all this tells of it.
	for want := map[string]bool{"ADDED after": true, "DELETED after": true, "DELETED before": true}; len(want) > 0; {
		kind, of := w.next(t)
		delete(want, kind+" "+of)
	}
}

func TestOverrides(t *testing.T) {
	for given, want := range map[string]string{
		"/events#https://a:2379;https://b:2379":                 "{ events} [https://a:2379 https://b:2379]",
		"apps/deployments#http://b:1;http://a:1":                "{apps deployments} [http://a:1 http://b:1]",
		"apps/*#http://a:1,coordination.k8s.io/leases#http://b": "{apps *} [http://a:1] {coordination.k8s.io leases} [http://b]",
		"events#http://a:1":                                     "give it as",
		"/events":                                               "give it as",
		"/#http://a:1":                                          "give it as",
		"a/b/c#http://a:1":                                      "give it as",
		"/events#http://a#http://b":                             "give it as",
		"/events#":                                              "is not a URL of etcd",
		"/events#a:2379":                                        "is not a URL of etcd",
		"/events#http://a;":                                     "is not a URL of etcd",
		"/events#http://a,/events#http://b":                     "twice",
	} {
		c := &Config{EtcdOverrides: strings.Split(given, ",")}
		all, err := c.overrides()
		var got []string
		for _, o := range all {
			got = append(got, fmt.Sprintf("{%s %s} %s", o.gr.Group, o.gr.Resource, o.servers))
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if s := strings.Join(got, " "); s != want && (err == nil || !strings.Contains(s, want)) {
			t.Errorf("%s: %s, want %s", given, s, want)
		}
	}
}

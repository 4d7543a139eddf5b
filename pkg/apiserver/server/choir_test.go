package server

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// TestManyWatchesOfOneConnection has a client follow one resource by many streams of one connection, take little at a time, take
// nothing for one of them, and give up whichever of the others was first. All others are told everything in order meanwhile,
// and the slow one is when its client wants it.
func TestManyWatchesOfOneConnection(t *testing.T) {
	t.Parallel()
	const (
		many, changes = 12, 60
		slow          = 3 // takes nothing
		window        = 1500
	)
	s := start(t)
	const path = "/api/v1/namespaces/default/configmaps"
	var made struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(s.Must(t, "POST", path, `{"metadata":{"name":"sung"}}`), &made); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", at.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // only read
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = io.WriteString(c, http2.ClientPreface)
	must(err)
	must(f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}))
	must(f.WriteWindowUpdate(0, 1<<30))
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for i := range uint32(many) {
		head.Reset()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", at.Host},
			{":path", path + "?watch=1&resourceVersion=" + made.Metadata.ResourceVersion}, {"authorization", "Bearer " + rig.AdminToken}} {
			must(enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
		}
		must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true}))
	}
	var writes sync.WaitGroup
	defer writes.Wait() // the last event may be here before the last answer
	writes.Go(func() {
		for i := range changes {
			if code, _, b := s.Try(t, "PUT", path+"/sung", fmt.Sprintf(`{"metadata":{"name":"sung"},"data":{"turn":"%d","filling":"%0300d"}}`, i, i), nil); code != 200 {
				t.Errorf("%d %s", code, b)
			}
		}
	})
	got := make([]bytes.Buffer, many)
	told := make([]int, many)
	given, slowly, whole := -1, 0, 0
	for whole < many-1 {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("%v; they were told %v", err, told)
		}
		d, ok := frame.(*http2.DataFrame)
		if !ok {
			continue
		}
		i := int(d.StreamID-1) / 2
		got[i].Write(d.Data())
		if given < 0 && told[i] == changes/3 && i != slow {
			given = i
			must(f.WriteRSTStream(d.StreamID, http2.ErrCodeCancel))
		}
		if i == given {
			continue
		}
		if n := uint32(len(d.Data())); i == slow && whole < many-2 {
			slowly += len(d.Data())
		} else if n > 0 {
			must(f.WriteWindowUpdate(d.StreamID, n))
		}
		for {
			line, err := got[i].ReadBytes('\n')
			if err != nil {
				rest := bytes.Clone(line)
				got[i].Reset()
				got[i].Write(rest)
				break
			}
			var e struct {
				Type   string
				Object struct{ Data map[string]string }
			}
			must(json.Unmarshal(line, &e))
			if e.Type != "MODIFIED" || e.Object.Data["turn"] != strconv.Itoa(told[i]) {
				t.Fatalf("stream %d was told %s %s as its event %d", i, e.Type, e.Object.Data["turn"], told[i])
			}
			told[i]++
		}
		if told[i] == changes {
			if whole++; whole == many-2 { // all but the slow one, and the one given up
				if slowly > window {
					t.Errorf("the slow stream was sent %d bytes", slowly)
				}
				must(f.WriteWindowUpdate(2*slow+1, 1<<20))
			}
		}
	}
}

// TestWatchBesideASlowConverter watches a resource in the version it is stored in, beside watches of another version on the same
// connection whose objects a service converts in its own time: only those wait for it.
func TestWatchBesideASlowConverter(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.dynamic(t)
	converts := converter(t)
	release := make(chan struct{})
	var asked atomic.Int32
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-release
		converts.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(hook.Close)
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	const version = `{"name":%q,"served":true,"storage":%t,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}`
	define(t, c, "slow.example.com", fmt.Sprintf(`"conversion":{"strategy":"Webhook","webhook":{"conversionReviewVersions":["v1"],"clientConfig":{"url":%q,"caBundle":%q}}},`, hook.URL, caOf(hook)),
		"["+fmt.Sprintf(version, "v1", true)+","+fmt.Sprintf(version, "v2", false)+"]")
	in := func(v string) dynamic.ResourceInterface {
		return c.Resource(schema.GroupVersionResource{Group: "slow.example.com", Version: v, Resource: "crons"})
	}
	list, err := in("v1").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watches := map[string][]watch.Interface{}
	for range 4 {
		for _, v := range []string{"v1", "v2"} {
			w, err := in(v).Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			watches[v] = append(watches[v], w)
		}
	}
	told := func(v string) {
		t.Helper()
		for _, w := range watches[v] {
			select {
			case e := <-w.ResultChan():
				if e.Type != watch.Added || e.Object.(*unstructured.Unstructured).GroupVersionKind().Version != v {
					t.Errorf("a watch of %s was told %v", v, e)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("a watch of %s was told nothing", v)
			}
		}
	}
	if _, err := in("v1").Create(t.Context(), object(t, `{"apiVersion":"slow.example.com/v1","kind":"Cron","metadata":{"name":"a"},"hostPort":"h:1"}`), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the converter is asked", func() bool { return asked.Load() > 0 })
	told("v1")
	free()
	told("v2")
}

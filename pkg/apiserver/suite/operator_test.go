package suite

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/sextant-k8s/sextant/hack/ports"
	"github.com/sextant-k8s/sextant/pkg/apiserver/rig"
)

// A greeting is the custom resource of a program on controller-runtime, written as such programs are.
type greeting struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Words string `json:"words,omitempty"`
	} `json:"spec,omitempty"`
	Status struct {
		Told     string `json:"told,omitempty"`
		Observed int64  `json:"observedGeneration,omitempty"`
	} `json:"status,omitempty"`
}

type greetingList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []greeting `json:"items"`
}

func (g *greeting) DeepCopyObject() runtime.Object {
	out := *g
	g.DeepCopyInto(&out.ObjectMeta)
	return &out
}

func (l *greetingList) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = nil
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*greeting))
	}
	return &out
}

const (
	greetingCRD = `{"metadata":{"name":"greetings.suite.example.com"},"spec":{"group":"suite.example.com","scope":"Namespaced","names":{"plural":"greetings","kind":"Greeting","listKind":"GreetingList"},
		"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","properties":{
		"spec":{"type":"object","properties":{"words":{"type":"string"}}},"status":{"type":"object","properties":{"told":{"type":"string"},"observedGeneration":{"type":"integer"}}}}}}}]}}`
	greetingHook = `{"metadata":{"name":"greetings.suite.example.com"},"webhooks":[{"name":"greetings.suite.example.com","sideEffects":"None","admissionReviewVersions":["v1"],"failurePolicy":"Fail",
		"rules":[{"apiGroups":["suite.example.com"],"apiVersions":["v1"],"operations":["CREATE","UPDATE"],"resources":["greetings"]}],"clientConfig":{"caBundle":"%s","url":"https://127.0.0.1:%d/%s-suite-example-com-v1-greeting"}}]}`
	finalizer = "suite.example.com/goodbye"
)

// operator reconciles greetings: each owns a map of its words, applied, and one of its farewell, which it holds with a
// finalizer and takes away itself.
type operator struct {
	ctrlclient.Client
	goodbyes atomic.Int64
}

func (o *operator) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	g := &greeting{}
	if err := o.Get(ctx, req.NamespacedName, g); err != nil {
		return ctrl.Result{}, ctrlclient.IgnoreNotFound(err)
	}
	farewell := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name + "-farewell"}}
	if !g.DeletionTimestamp.IsZero() {
		if err := o.Delete(ctx, farewell); ctrlclient.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, err
		}
		if controllerutil.RemoveFinalizer(g, finalizer) {
			o.goodbyes.Add(1)
			return ctrl.Result{}, ctrlclient.IgnoreNotFound(o.Update(ctx, g))
		}
		return ctrl.Result{}, nil
	}
	if before := g.DeepCopyObject().(*greeting); controllerutil.AddFinalizer(g, finalizer) {
		if err := o.Patch(ctx, g, ctrlclient.MergeFromWithOptions(before, ctrlclient.MergeFromWithOptimisticLock{})); err != nil {
			return ctrl.Result{}, err
		}
	}
	words := applycorev1.ConfigMap(g.Name, g.Namespace).WithData(map[string]string{"words": g.Spec.Words}).WithOwnerReferences(applymetav1.OwnerReference().
		WithAPIVersion("suite.example.com/v1").WithKind("Greeting").WithName(g.Name).WithUID(g.UID).WithController(true).WithBlockOwnerDeletion(true))
	if err := o.Apply(ctx, words, ctrlclient.FieldOwner("greeter"), ctrlclient.ForceOwnership); err != nil {
		return ctrl.Result{}, err
	}
	if _, err := controllerutil.CreateOrUpdate(ctx, o.Client, farewell, func() error {
		farewell.Data = map[string]string{"words": "no longer " + g.Spec.Words}
		return controllerutil.SetControllerReference(g, farewell, o.Scheme())
	}); err != nil {
		return ctrl.Result{}, err
	}
	if g.Status.Told == g.Spec.Words && g.Status.Observed == g.Generation {
		return ctrl.Result{}, nil
	}
	g.Status.Told, g.Status.Observed = g.Spec.Words, g.Generation
	return ctrl.Result{}, o.Status().Update(ctx, g)
}

// manners are the webhooks: who says nothing greets, and nobody curses.
type manners struct{}

func (manners) Default(_ context.Context, g *greeting) error {
	if g.Spec.Words == "" {
		g.Spec.Words = "hello"
	}
	return nil
}

func (m manners) ValidateCreate(_ context.Context, g *greeting) (admission.Warnings, error) {
	if strings.Contains(g.Spec.Words, "curse") {
		return nil, errors.New("nobody curses")
	}
	return nil, nil
}

func (m manners) ValidateUpdate(ctx context.Context, _, g *greeting) (admission.Warnings, error) {
	return m.ValidateCreate(ctx, g)
}

func (manners) ValidateDelete(context.Context, *greeting) (admission.Warnings, error) {
	return nil, nil
}

// TestControllerRuntime runs a program on controller-runtime, with all that such programs use, through a server that is
// killed and started again: its webhooks are asked, its objects reconciled before and after, by the same leader.
func TestControllerRuntime(t *testing.T) {
	t.Parallel()
	_, dbURL := rig.NewEtcd(t)
	p, s := newServer(t, dbURL)
	s.Must(t, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", greetingCRD)

	certs, hookPort, metricsPort := t.TempDir(), ports.Free(t), ports.Free(t)
	pem, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"tls.crt": pem, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(certs, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	known := runtime.NewScheme()
	if err := scheme.AddToScheme(known); err != nil {
		t.Fatal(err)
	}
	gv := schema.GroupVersion{Group: "suite.example.com", Version: "v1"}
	known.AddKnownTypeWithName(gv.WithKind("Greeting"), &greeting{})
	known.AddKnownTypeWithName(gv.WithKind("GreetingList"), &greetingList{})
	metav1.AddToGroupVersion(known, gv)
	mgr, err := ctrl.NewManager(s.config(), ctrl.Options{
		Scheme: known, Logger: logr.Discard(), LeaderElection: true, LeaderElectionID: "greeter", LeaderElectionNamespace: "default", LeaderElectionReleaseOnCancel: true,
		// A server built to look for races, on a busy machine, may be gone for longer than leaders commonly wait for it.
		LeaseDuration: ptr.To(90 * time.Second), RenewDeadline: ptr.To(60 * time.Second),
		Cache:   cache.Options{DefaultNamespaces: map[string]cache.Config{"default": {}}},
		Metrics: server.Options{BindAddress: fmt.Sprintf("127.0.0.1:%d", metricsPort)}, WebhookServer: webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: hookPort, CertDir: certs}),
	})
	if err != nil {
		t.Fatal(err)
	}
	o := &operator{Client: mgr.GetClient()}
	if err := ctrl.NewControllerManagedBy(mgr).For(&greeting{}).Owns(&corev1.ConfigMap{}).Complete(o); err != nil {
		t.Fatal(err)
	}
	if err := ctrl.NewWebhookManagedBy(mgr, &greeting{}).WithDefaulter(manners{}).WithValidator(manners{}).Complete(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the manager ended with %v", err)
		}
	})
	select {
	case <-mgr.Elected():
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was elected")
	}
	ca := base64.StdEncoding.EncodeToString(pem)
	for kind, path := range map[string]string{"mutating": "mutate", "validating": "validate"} {
		s.Must(t, "POST", "/apis/admissionregistration.k8s.io/v1/"+kind+"webhookconfigurations", fmt.Sprintf(greetingHook, ca, hookPort, path))
	}
	c, err := ctrlclient.New(s.config(), ctrlclient.Options{Scheme: known})
	if err != nil {
		t.Fatal(err)
	}
	made := func(name, words string, opts ...ctrlclient.CreateOption) error {
		g := &greeting{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		g.Spec.Words = words
		return c.Create(ctx, g, opts...)
	}
	within := func(what string, is func() (bool, error)) {
		t.Helper()
		for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			ok, err := is()
			if ok && err == nil {
				return
			}
			if time.Since(begun) > 20*time.Second {
				t.Fatalf("it did not come to it that %s: %v", what, err)
			}
		}
	}
	reconciled := func(name, words string) {
		t.Helper()
		at := types.NamespacedName{Namespace: "default", Name: name}
		within(name+" says "+words, func() (bool, error) {
			var g greeting
			var told, farewell corev1.ConfigMap
			if err := errors.Join(c.Get(ctx, at, &g), c.Get(ctx, at, &told), c.Get(ctx, types.NamespacedName{Namespace: "default", Name: name + "-farewell"}, &farewell)); err != nil {
				return false, err
			}
			return g.Status.Told == words && g.Status.Observed == g.Generation && controllerutil.ContainsFinalizer(&g, finalizer) && told.Data["words"] == words &&
				metav1.IsControlledBy(&told, &g) && metav1.IsControlledBy(&farewell, &g) && farewell.Data["words"] == "no longer "+words, nil
		})
	}

	// A configuration is in force a moment after it was written: until then nobody is refused, nor put words into.
	within("nobody curses", func() (bool, error) {
		err := made("rude", "curse", ctrlclient.DryRunAll)
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "nobody curses"), nil
	})
	within("who says nothing greets", func() (bool, error) {
		g := &greeting{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "silent"}}
		err := c.Create(ctx, g, ctrlclient.DryRunAll)
		return g.Spec.Words == "hello", err
	})
	if err := made("silent", ""); err != nil {
		t.Fatal(err)
	}
	reconciled("silent", "hello")
	p.Kill()
	p.Start(t)
	s.Ready(t, 30*time.Second)
	if err := made("after", "here again"); err != nil {
		t.Fatal(err)
	}
	reconciled("after", "here again")
	if err := c.Patch(ctx, &greeting{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "silent"}}, ctrlclient.RawPatch(types.MergePatchType, []byte(`{"spec":{"words":"still here"}}`))); err != nil {
		t.Fatal(err)
	}
	reconciled("silent", "still here")
	before := o.goodbyes.Load()
	if err := c.Delete(ctx, &greeting{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "silent"}}); err != nil {
		t.Fatal(err)
	}
	within("silent is gone, and its farewell", func() (bool, error) {
		err := c.Get(ctx, types.NamespacedName{Namespace: "default", Name: "silent"}, &greeting{})
		left := c.Get(ctx, types.NamespacedName{Namespace: "default", Name: "silent-farewell"}, &corev1.ConfigMap{})
		return apierrors.IsNotFound(err) && apierrors.IsNotFound(left) && o.goodbyes.Load() > before, nil
	})
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", metricsPort))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("its metrics: %v %v", resp, err)
	}
	if err == nil {
		_ = resp.Body.Close() // only its code was read
	}
}

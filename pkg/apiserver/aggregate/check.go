package aggregate

import (
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/openapi"
)

var (
	services       = schema.GroupResource{Resource: "services"}
	endpointSlices = schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}
)

// How often a backend is looked at: one that is there seldom, one that is not often, and at once when endpoints change.
const (
	whenThere = 30 * time.Second
	whenNot   = 2 * time.Second
	glance    = 250 * time.Millisecond
)

// run looks at the backend until ctx ends.
func (b *backend) run(ctx context.Context) {
	defer b.transport.CloseIdleConnections()
	for ctx.Err() == nil {
		seen := b.changes()
		c := b.condition(ctx)
		if ctx.Err() != nil {
			return
		}
		b.mu.Lock()
		b.available = c.Status == apiregistrationv1.ConditionTrue
		b.mu.Unlock()
		if c.Status == apiregistrationv1.ConditionTrue {
			b.readOpenAPI(ctx)
		}
		b.room.tell()
		if err := b.write(ctx, c); err != nil && ctx.Err() == nil {
			slog.Error("the condition of an APIService cannot be written", "name", b.service.Name, "err", err)
		}
		wait := whenNot
		if c.Status == apiregistrationv1.ConditionTrue {
			wait = whenThere
		}
		b.sleep(ctx, wait, seen)
	}
}

// changes counts what the backend's reachability depends on.
func (b *backend) changes() [2]uint64 {
	return [2]uint64{b.room.c.Env.Changed(services), b.room.c.Env.Changed(endpointSlices)}
}

// sleep waits, but not beyond a change of services or endpoints.
func (b *backend) sleep(ctx context.Context, d time.Duration, seen [2]uint64) {
	t := time.NewTicker(glance)
	defer t.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-b.again:
			return
		case <-t.C:
			if b.changes() != seen {
				return
			}
		}
	}
}

// condition finds out whether the backend is there, and what it serves.
func (b *backend) condition(ctx context.Context) apiregistrationv1.APIServiceCondition {
	no := func(reason, format string, args ...any) apiregistrationv1.APIServiceCondition {
		return apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	ref := b.service.Spec.Service
	obj, err := b.room.c.Env.Get(ctx, services, ref.Namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return no("ServiceNotFound", "service/%s in %q is not present", ref.Name, ref.Namespace)
	}
	if err != nil {
		return no("ServiceAccessError", "service/%s in %q cannot be checked due to: %v", ref.Name, ref.Namespace, err)
	}
	if s := obj.(*corev1.Service); s.Spec.Type != corev1.ServiceTypeExternalName {
		name, found := "", false
		for _, p := range s.Spec.Ports {
			if p.Port == b.port() {
				name, found = p.Name, true
			}
		}
		if !found {
			return no("ServicePortError", "service/%s in %q is not listening on port %d", ref.Name, ref.Namespace, b.port())
		}
		has, ready := b.endpoints(ctx, name)
		switch {
		case !has:
			return no("EndpointsNotFound", "cannot find endpointslices for service/%s in %q", ref.Name, ref.Namespace)
		case !ready:
			return no("MissingEndpoints", "endpoints for service/%s in %q have no addresses with port name %q", ref.Name, ref.Namespace, name)
		}
	}
	path := "/apis/" + b.service.Spec.Group + "/" + b.service.Spec.Version
	body, err := b.get(ctx, path, "application/json")
	list := &metav1.APIResourceList{}
	if err == nil {
		err = json.Unmarshal(body, list)
	}
	if err != nil {
		return no("FailedDiscoveryCheck", "failing or missing response from %v: %v", b.url(path), err)
	}
	b.mu.Lock()
	b.resources = list
	b.mu.Unlock()
	return apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, Reason: "Passed", Message: "all checks passed"}
}

// endpoints tells whether the service has slices, and a ready endpoint on the port.
func (b *backend) endpoints(ctx context.Context, port string) (slices, ready bool) {
	ref := b.service.Spec.Service
	objs, err := b.room.c.Env.List(ctx, endpointSlices, ref.Namespace)
	if err != nil {
		return false, false
	}
	for _, o := range objs {
		s := o.(*discoveryv1.EndpointSlice)
		if s.Labels[discoveryv1.LabelServiceName] != ref.Name {
			continue
		}
		slices = true
		for _, p := range s.Ports {
			if p.Name != nil && *p.Name != port || p.Name == nil && port != "" {
				continue
			}
			for _, e := range s.Endpoints {
				ready = ready || e.Conditions.Ready == nil || *e.Conditions.Ready
			}
		}
	}
	return slices, ready
}

// write stores the condition if it says anything new.
func (b *backend) write(ctx context.Context, c apiregistrationv1.APIServiceCondition) error {
	_, err := b.room.c.Env.Mutate(ctx, apiServices, "", b.service.Name, func(o kind.Object) error {
		s := o.(*apiregistrationv1.APIService)
		if !equality.Semantic.DeepEqual(s.Spec, b.service.Spec) {
			return nil // no longer about this backend
		}
		if c.Status == apiregistrationv1.ConditionFalse && isAvailable(s) {
			lost.WithLabelValues(s.Name, c.Reason).Inc()
		}
		setCondition(s, c)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func setCondition(s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition) {
	for i := range s.Status.Conditions {
		old := &s.Status.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		c.LastTransitionTime = old.LastTransitionTime
		if old.Status != c.Status {
			c.LastTransitionTime = metav1.Now()
		}
		*old = c
		return
	}
	c.LastTransitionTime = metav1.Now()
	s.Status.Conditions = append(s.Status.Conditions, c)
}

// readOpenAPI takes over how the backend describes itself; one that does not is served all the same.
func (b *backend) readOpenAPI(ctx context.Context) {
	gv := b.service.Spec.Group + "/" + b.service.Spec.Version
	f := openapi.Foreign{Key: "apis/" + gv}
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if body, err := b.get(ctx, "/openapi/v3", "application/json"); err == nil && json.Unmarshal(body, &index) == nil {
		if p, ok := index.Paths[f.Key]; ok {
			_, f.Hash, _ = strings.Cut(p.URL, "?hash=")
			if f.Hash == "" {
				f.Hash = fmt.Sprintf("%X", sha512.Sum512([]byte(p.URL)))
			}
		}
	}
	if body, err := b.get(ctx, "/openapi/v2", "application/json"); err == nil {
		var doc struct {
			Paths       map[string]json.RawMessage `json:"paths"`
			Definitions map[string]json.RawMessage `json:"definitions"`
		}
		if json.Unmarshal(body, &doc) == nil {
			f.Definitions, f.Paths = doc.Definitions, map[string]json.RawMessage{}
			for p, text := range doc.Paths {
				if strings.HasPrefix(p, "/"+f.Key+"/") {
					f.Paths[p] = text
				}
			}
			if f.Hash == "" && len(f.Paths) > 0 {
				if err := f.Translate(); err != nil {
					slog.Info("an aggregated server's OpenAPI is not shown in v3", "apiservice", b.service.Name, "err", err)
				}
			}
		}
	}
	b.mu.Lock()
	b.documents = f
	b.mu.Unlock()
}

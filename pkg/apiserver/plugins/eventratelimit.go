package plugins

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/lru"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// eventLimit is one limit: so many events a second of whatever has the same key.
type eventLimit struct {
	Type      string `json:"type"` // Server, Namespace, User, SourceAndObject
	QPS       int32  `json:"qps"`
	Burst     int32  `json:"burst"`
	CacheSize int32  `json:"cacheSize"`

	key     func(r *admission.Request, e *corev1.Event) string
	mu      sync.Mutex
	buckets *lru.Cache
}

// defaultBuckets is how many keys a limit remembers unless it says otherwise.
const defaultBuckets = 4096

// eventKeys are what the types of limits tell apart.
var eventKeys = map[string]func(r *admission.Request, e *corev1.Event) string{
	"Server":    func(*admission.Request, *corev1.Event) string { return "" },
	"Namespace": func(r *admission.Request, _ *corev1.Event) string { return r.Namespace },
	"User":      func(r *admission.Request, _ *corev1.Event) string { return userName(r) },
	"SourceAndObject": func(_ *admission.Request, e *corev1.Event) string {
		o := e.InvolvedObject
		return strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion}, "")
	},
}

func (l *eventLimit) complete() error {
	if l.key = eventKeys[l.Type]; l.key == nil {
		return fmt.Errorf("limits: type: Unsupported value: %q: supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\"", l.Type)
	}
	if l.QPS <= 0 || l.Burst <= 0 || l.CacheSize < 0 {
		return errors.New("limits: qps and burst must be positive, cacheSize must not be negative")
	}
	size := int(l.CacheSize)
	if size == 0 || l.Type == "Server" {
		size = defaultBuckets
	}
	l.buckets = lru.New(size)
	return nil
}

// takes tells whether one more event of a key is within the limit, and counts it.
func (l *eventLimit) takes(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets.Get(key)
	if !ok {
		b = flowcontrol.NewTokenBucketRateLimiter(float32(l.QPS), int(l.Burst))
		l.buckets.Add(key, b)
	}
	return b.(flowcontrol.RateLimiter).TryAccept()
}

// EventRateLimit bounds how many events are written, by whatever its limits tell apart. It remembers, so it is made once.
func EventRateLimit(c Configuration) (admission.Plugin, error) {
	const name = "EventRateLimit"
	var conf struct {
		typed
		Limits []*eventLimit `json:"limits"`
	}
	ok, err := c.read(name, &conf, &conf.typed, "Configuration", "eventratelimit.admission.k8s.io/v1alpha1")
	if err != nil {
		return admission.Plugin{}, err
	}
	if !ok || len(conf.Limits) == 0 {
		return admission.Plugin{}, needed(name)
	}
	for _, l := range conf.Limits {
		if err := l.complete(); err != nil {
			return admission.Plugin{}, fmt.Errorf("the configuration of %s: %w", name, err)
		}
	}
	return admission.Plugin{Name: name, Validate: func(_ context.Context, r *admission.Request) error {
		e, _ := r.Object.(*corev1.Event)
		if e == nil || r.DryRun || r.Verb != admission.Create && r.Verb != admission.Update {
			return nil
		}
		var full []string
		for _, l := range conf.Limits { // an event counts against each, also when one refuses it
			if key := l.key(r, e); !l.takes(key) {
				full = append(full, fmt.Sprintf("limit reached on type %v for key %v", l.Type, key))
			}
		}
		switch len(full) {
		case 0:
			return nil
		case 1:
			return apierrors.NewTooManyRequestsError(full[0])
		}
		return apierrors.NewTooManyRequestsError("[" + strings.Join(full, ", ") + "]")
	}}, nil
}

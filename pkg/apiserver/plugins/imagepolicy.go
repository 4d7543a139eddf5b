package plugins

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apimachinery/pkg/util/wait"
	kwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"

	"github.com/sextant-k8s/sextant/pkg/apiserver/admission"
)

// imagePolicy asks a service whether the images of a pod may run.
type imagePolicy struct {
	url          string
	client       *http.Client
	yes, no      time.Duration // how long answers are kept
	backoff      wait.Backoff
	defaultAllow bool
	answers      *cache.LRUExpireCache
}

// most bounds an answer, in bytes, and how many answers are kept.
const (
	mostAnswer  = 1 << 20
	mostAnswers = 1024
)

const imagePolicyName = "ImagePolicyWebhook"

// ImagePolicyWebhook lets only those pods be made whose images a service allows. It remembers answers, so it is made once.
func ImagePolicyWebhook(c Configuration) (admission.Plugin, error) {
	var conf struct {
		ImagePolicy struct {
			KubeConfigFile string `json:"kubeConfigFile"`
			AllowTTL       int64  `json:"allowTTL"`     // seconds
			DenyTTL        int64  `json:"denyTTL"`      // seconds
			RetryBackoff   int64  `json:"retryBackoff"` // milliseconds
			DefaultAllow   bool   `json:"defaultAllow"`
		} `json:"imagePolicy"`
	}
	ok, err := c.read(imagePolicyName, &conf, nil, "")
	if err != nil {
		return admission.Plugin{}, err
	}
	if !ok {
		return admission.Plugin{}, needed(imagePolicyName)
	}
	i := conf.ImagePolicy
	p := &imagePolicy{defaultAllow: i.DefaultAllow, answers: cache.NewLRUExpireCache(mostAnswers)}
	var retry time.Duration
	for _, d := range []struct {
		name                    string
		to                      *time.Duration
		n                       int64
		unit, usual, least, top time.Duration
	}{
		{"allowTTL", &p.yes, i.AllowTTL, time.Second, 5 * time.Minute, time.Second, 30 * time.Minute},
		{"denyTTL", &p.no, i.DenyTTL, time.Second, 30 * time.Second, time.Second, 30 * time.Minute},
		{"retryBackoff", &retry, i.RetryBackoff, time.Millisecond, 500 * time.Millisecond, time.Millisecond, 5 * time.Minute},
	} {
		switch v := time.Duration(d.n) * d.unit; {
		case d.n == 0:
			*d.to = d.usual
		case d.n == -1: // none
		case v < d.least || v > d.top:
			return admission.Plugin{}, fmt.Errorf("the configuration of %s: %s is %v: give %v to %v", imagePolicyName, d.name, v, d.least, d.top)
		default:
			*d.to = v
		}
	}
	p.backoff = wait.Backoff{Duration: retry, Factor: 1.5, Jitter: 0.2, Steps: 5}
	config, err := kwebhook.LoadKubeconfig(i.KubeConfigFile, nil)
	if err != nil {
		return admission.Plugin{}, fmt.Errorf("the configuration of %s: kubeConfigFile: %w", imagePolicyName, err)
	}
	p.url = config.Host
	if p.client, err = rest.HTTPClientFor(config); err != nil {
		return admission.Plugin{}, fmt.Errorf("the configuration of %s: kubeConfigFile: %w", imagePolicyName, err)
	}
	return admission.Plugin{Name: imagePolicyName, Validate: p.validate}, nil
}

func (p *imagePolicy) validate(ctx context.Context, r *admission.Request) error {
	pod, _ := r.Object.(*corev1.Pod)
	if pod == nil || r.Verb != admission.Create && r.Verb != admission.Update || r.Sub != "" && r.Sub != "ephemeralcontainers" {
		return nil
	}
	review := &imagepolicyv1alpha1.ImageReview{Spec: imagepolicyv1alpha1.ImageReviewSpec{Namespace: r.Namespace, Annotations: map[string]string{}}}
	review.APIVersion, review.Kind = imagepolicyv1alpha1.SchemeGroupVersion.String(), "ImageReview"
	add := func(image string) {
		review.Spec.Containers = append(review.Spec.Containers, imagepolicyv1alpha1.ImageReviewContainerSpec{Image: image})
	}
	if r.Sub == "" {
		for _, c := range pod.Spec.Containers {
			add(c.Image)
		}
		for _, c := range pod.Spec.InitContainers {
			add(c.Image)
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		add(c.Image)
	}
	for k, v := range pod.Annotations {
		if strings.Contains(k, ".image-policy.k8s.io/") {
			review.Spec.Annotations[k] = v
		}
	}
	note := func(key, value string) {
		if r.Annotate != nil {
			r.Annotate("imagepolicywebhook.image-policy.k8s.io/"+key, value)
		}
	}
	answer, err := p.ask(ctx, review)
	if err != nil {
		slog.Warn("the image policy service could not be asked", "err", err)
		if p.defaultAllow {
			note("failed-open", "true")
			return nil
		}
		return err
	}
	for k, v := range answer.AuditAnnotations {
		note(k, v)
	}
	switch {
	case answer.Allowed:
		return nil
	case answer.Reason != "":
		return fmt.Errorf("image policy webhook backend denied one or more images: %s", answer.Reason)
	}
	return errors.New("one or more images rejected by webhook backend")
}

// ask answers what the service says of a review, or said a while ago.
func (p *imagePolicy) ask(ctx context.Context, review *imagepolicyv1alpha1.ImageReview) (*imagepolicyv1alpha1.ImageReviewStatus, error) {
	body, err := json.Marshal(review)
	if err != nil {
		return nil, err
	}
	if known, ok := p.answers.Get(string(body)); ok {
		return known.(*imagepolicyv1alpha1.ImageReviewStatus), nil
	}
	answer := &imagepolicyv1alpha1.ImageReview{}
	post := func() error { return p.post(ctx, body, answer) }
	if p.backoff.Duration > 0 {
		err = kwebhook.WithExponentialBackoff(ctx, p.backoff, post, kwebhook.DefaultShouldRetry)
	} else {
		err = post()
	}
	if err != nil {
		return nil, err
	}
	keep := p.no
	if answer.Status.Allowed {
		keep = p.yes
	}
	if keep > 0 {
		p.answers.Add(string(body), &answer.Status, keep)
	}
	return &answer.Status, nil
}

func (p *imagePolicy) post(ctx context.Context, body []byte, answer *imagepolicyv1alpha1.ImageReview) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return apierrors.NewGenericServerResponse(resp.StatusCode, http.MethodPost, schema.GroupResource{}, "", string(text), 0, true)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return err
	}
	if gvk := answer.GroupVersionKind(); gvk != imagepolicyv1alpha1.SchemeGroupVersion.WithKind("ImageReview") {
		return fmt.Errorf("the image policy service answered with a %s", gvk)
	}
	return nil
}

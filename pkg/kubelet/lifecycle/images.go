package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/credential"
	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

const reasonPullBackoff = "ImagePullBackOff"

// images makes images present. Pulls of one image by several pods at once are one pull.
type images struct {
	cri     *cri.Client
	records *credential.Records
	slots   chan struct{}
	pace    *rate.Limiter

	mu      sync.Mutex
	pulling map[string]*pull
	backoff map[string]*imageBackoff
}

type pull struct {
	done chan struct{}
	err  error
}

type imageBackoff struct {
	delay time.Duration
	until time.Time
}

// foresee asks the runtime for a container's image and answers where the answer is waited for; nil when there is none to ask for.
func (im *images) foresee(ctx context.Context, c *v1.Container) func() (*runtimeapi.Image, error) {
	if c == nil || malformed(c.Image) {
		return nil
	}
	ask := sync.OnceValues(func() (*runtimeapi.Image, error) { return im.status(ctx, specOfImage(c)) })
	go func() { _, _ = ask() }()
	return ask
}

func malformed(image string) bool {
	return image == "" || strings.ContainsAny(image, " \t") || strings.ToLower(repository(image)) != repository(image)
}

func specOfImage(c *v1.Container) *runtimeapi.ImageSpec {
	return &runtimeapi.ImageSpec{Image: tagged(c.Image), UserSpecifiedImage: c.Image}
}

// ensure answers the image as the runtime names it, pulled when the policy asks for that. foreseen, when not nil, is foresee's.
func (im *images) ensure(ctx context.Context, w *worker, pod *v1.Pod, c *v1.Container, foreseen func() (*runtimeapi.Image, error)) (*runtimeapi.Image, error) {
	if malformed(c.Image) {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: invalid reference format", c.Image, c.Image)
		w.event(pod, v1.EventTypeWarning, "InspectFailed", msg, c.Name)
		return nil, &startError{"InvalidImageName", errors.New(msg), "Failed"}
	}
	spec := specOfImage(c)
	if foreseen == nil {
		foreseen = func() (*runtimeapi.Image, error) { return im.status(ctx, spec) }
	}
	present, err := foreseen()
	if err != nil {
		return nil, &startError{"ImageInspectError", fmt.Errorf("Failed to inspect image %q: %s", c.Image, cri.Text(err)), "InspectFailed"}
	}
	policy := c.ImagePullPolicy
	if policy == "" {
		policy = v1.PullIfNotPresent
	}
	pull := policy == v1.PullAlways || present == nil && policy != v1.PullNever
	w.m.cfg.Metrics.Ensured(policy, present != nil, pull)
	keys := sync.OnceValue(func() []credential.Credential { return w.keys(ctx, pod, spec.Image) })
	if present != nil && policy != v1.PullAlways && im.records.May(spec.Image, present.Id, keys) {
		w.event(pod, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", c.Image), c.Name)
		return present, nil
	}
	if policy == v1.PullNever {
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		w.event(pod, v1.EventTypeWarning, "ErrImageNeverPull", msg, c.Name)
		return nil, &startError{"ErrImageNeverPull", errors.New(msg), "Failed"}
	}
	key := w.uid + " " + c.Image
	im.mu.Lock()
	if b := im.backoff[key]; b != nil && now().Before(b.until) {
		im.mu.Unlock()
		msg := fmt.Sprintf("Back-off pulling image %q", c.Image)
		w.event(pod, v1.EventTypeNormal, "BackOff", msg, c.Name)
		return nil, &startError{reasonPullBackoff, errors.New(msg), "Failed"}
	}
	im.mu.Unlock()
	w.event(pod, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image), c.Name)
	begin := now()
	if err := im.pull(ctx, w, keys(), spec); err != nil {
		im.mu.Lock()
		b := im.backoff[key]
		if b == nil {
			b = &imageBackoff{delay: 5 * time.Second}
			im.backoff[key] = b
		}
		b.delay = min(2*b.delay, 5*time.Minute)
		b.until = now().Add(b.delay)
		im.mu.Unlock()
		w.event(pod, v1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", c.Image, cri.Text(err)), c.Name)
		return nil, &startError{"ErrImagePull", errors.New(cri.Text(err)), "Failed"}
	}
	im.mu.Lock()
	delete(im.backoff, key)
	im.mu.Unlock()
	present, err = im.status(ctx, spec)
	if err != nil || present == nil {
		return nil, &startError{"ImageInspectError", fmt.Errorf("Failed to inspect image %q: %v", c.Image, err), "InspectFailed"}
	}
	took := now().Sub(begin).Round(time.Millisecond)
	w.pulled(present.Size, took)
	w.event(pod, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.", c.Image, took, took, present.Size), c.Name)
	return present, nil
}

// imageVolumes makes the images present which a container mounts, each by its own policy; by the volumes' names.
func (w *worker) imageVolumes(ctx context.Context, pod *v1.Pod, c *v1.Container) (map[string]*runtimeapi.ImageSpec, error) {
	out := map[string]*runtimeapi.ImageSpec{}
	for _, m := range c.VolumeMounts {
		src := imageVolume(pod, m.Name)
		if src == nil || out[m.Name] != nil {
			continue
		}
		img, err := w.m.images.ensure(ctx, w, pod, &v1.Container{Name: c.Name, Image: src.Reference, ImagePullPolicy: src.PullPolicy}, nil)
		w.m.cfg.Metrics.ImageVolume(err)
		if err != nil {
			return nil, err
		}
		out[m.Name] = &runtimeapi.ImageSpec{Image: img.Id, UserSpecifiedImage: src.Reference}
	}
	return out, nil
}

func (im *images) status(ctx context.Context, spec *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	r, err := im.cri.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil {
		return nil, err
	}
	return r.Image, nil
}

// pull brings an image with the first key that opens its registry, or with none when the pod has none.
func (im *images) pull(ctx context.Context, w *worker, keys []credential.Credential, spec *runtimeapi.ImageSpec) error {
	key := spec.Image
	for _, k := range keys {
		if k.Secret != nil || k.Account != nil {
			// Credentials are one pod's: nobody shares the pull they allow.
			key += " " + w.uid
			break
		}
	}
	im.mu.Lock()
	if p := im.pulling[key]; p != nil {
		im.mu.Unlock()
		select {
		case <-p.done:
			return p.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p := &pull{done: make(chan struct{})}
	im.pulling[key] = p
	im.mu.Unlock()
	defer func() {
		im.mu.Lock()
		delete(im.pulling, key)
		im.mu.Unlock()
		close(p.done)
	}()
	if im.pace != nil && !im.pace.Allow() {
		p.err = errors.New("pull QPS exceeded")
		return p.err
	}
	if im.slots != nil {
		select {
		case im.slots <- struct{}{}:
			defer func() { <-im.slots }()
		case <-ctx.Done():
			p.err = ctx.Err()
			return p.err
		}
	}
	p.err = im.fetch(ctx, keys, spec)
	return p.err
}

// fetch asks the runtime, and writes down which key it was.
func (im *images) fetch(ctx context.Context, keys []credential.Credential, spec *runtimeapi.ImageSpec) error {
	if err := im.records.Begin(spec.Image); err != nil {
		return fmt.Errorf("writing down that image %q is to be pulled: %w", spec.Image, err)
	}
	try := func(auth *runtimeapi.AuthConfig, with *credential.Credential) error {
		if _, err := im.cri.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, Auth: auth}); err != nil {
			return err
		}
		// Pods are asked for what they have by the ID the runtime lists the image under.
		img, err := im.status(ctx, spec)
		if err == nil && img == nil {
			err = errors.New("the runtime does not know it")
		}
		if err != nil {
			return fmt.Errorf("image %q was pulled and is not there: %w", spec.Image, err)
		}
		im.records.Done(spec.Image, img.Id, with)
		return nil
	}
	var err error
	if len(keys) == 0 {
		err = try(nil, nil)
	}
	for i := range keys {
		if err = try(&runtimeapi.AuthConfig{Username: keys[i].Username, Password: keys[i].Password}, &keys[i]); err == nil {
			break
		}
	}
	if err != nil {
		im.records.Failed(spec.Image)
	}
	return err
}

// keys are what the pod has for the image's registry; pull secrets which cannot be read are told and passed over.
func (w *worker) keys(ctx context.Context, pod *v1.Pod, image string) []credential.Credential {
	var secrets []*v1.Secret
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		s, err := w.m.cfg.Objects.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			w.event(pod, v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", ref.Name))
			continue
		}
		secrets = append(secrets, s)
	}
	return w.m.cfg.Keyring.For(ctx, pod, image, secrets)
}

// repository is an image name without tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		image = image[:i]
	}
	return image
}

// tagged is an image name which says its tag.
func tagged(image string) string {
	if strings.Contains(image, "@") || repository(image) != image {
		return image
	}
	return image + ":latest"
}

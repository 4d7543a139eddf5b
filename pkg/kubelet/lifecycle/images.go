package lifecycle

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/cri"
)

const reasonPullBackoff = "ImagePullBackOff"

// images makes images present. Pulls of one image by several pods at once are one pull.
type images struct {
	cri   *cri.Client
	slots chan struct{}

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

// ensure answers the image as the runtime names it, pulled when the policy asks for that.
func (im *images) ensure(ctx context.Context, w *worker, pod *v1.Pod, c *v1.Container) (*runtimeapi.Image, error) {
	if c.Image == "" || strings.ContainsAny(c.Image, " \t") || strings.ToLower(repository(c.Image)) != repository(c.Image) {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: invalid reference format", c.Image, c.Image)
		w.event(pod, v1.EventTypeWarning, "InspectFailed", msg, c.Name)
		return nil, &startError{"InvalidImageName", errors.New(msg), "Failed"}
	}
	spec := &runtimeapi.ImageSpec{Image: tagged(c.Image), UserSpecifiedImage: c.Image}
	present, err := im.status(ctx, spec)
	if err != nil {
		return nil, &startError{"ImageInspectError", fmt.Errorf("Failed to inspect image %q: %s", c.Image, cri.Text(err)), "InspectFailed"}
	}
	policy := c.ImagePullPolicy
	if policy == "" {
		policy = v1.PullIfNotPresent
	}
	if present != nil && policy != v1.PullAlways {
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
	if err := im.pull(ctx, w, pod, spec); err != nil {
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
		img, err := w.m.images.ensure(ctx, w, pod, &v1.Container{Name: c.Name, Image: src.Reference, ImagePullPolicy: src.PullPolicy})
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

func (im *images) pull(ctx context.Context, w *worker, pod *v1.Pod, spec *runtimeapi.ImageSpec) error {
	auths := w.pullAuths(ctx, pod, spec.Image)
	key := spec.Image
	if len(auths) > 0 {
		// Credentials are one pod's: nobody shares the pull they allow.
		key += " " + w.uid
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
	if im.slots != nil {
		select {
		case im.slots <- struct{}{}:
			defer func() { <-im.slots }()
		case <-ctx.Done():
			p.err = ctx.Err()
			return p.err
		}
	}
	if len(auths) == 0 {
		auths = append(auths, nil)
	}
	for _, a := range auths {
		if _, p.err = im.cri.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, Auth: a}); p.err == nil {
			return nil
		}
	}
	return p.err
}

// pullAuths are the credentials of the pod's pull secrets which match the image's registry.
func (w *worker) pullAuths(ctx context.Context, pod *v1.Pod, image string) []*runtimeapi.AuthConfig {
	var out []*runtimeapi.AuthConfig
	for _, ref := range pod.Spec.ImagePullSecrets {
		s, err := w.m.cfg.Objects.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			w.event(pod, v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", ref.Name))
			continue
		}
		var file struct {
			Auths map[string]struct {
				Username, Password, Auth string
			}
		}
		raw := s.Data[v1.DockerConfigJsonKey]
		if raw != nil {
			_ = json.Unmarshal(raw, &file)
		} else if raw = s.Data[v1.DockerConfigKey]; raw != nil {
			_ = json.Unmarshal(raw, &file.Auths)
		}
		for host, a := range file.Auths {
			if !serves(host, image) {
				continue
			}
			if dec, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && a.Auth != "" {
				a.Username, a.Password, _ = strings.Cut(string(dec), ":")
			}
			out = append(out, &runtimeapi.AuthConfig{Username: a.Username, Password: a.Password})
		}
	}
	return out
}

// serves tells whether a docker config entry is for the image's registry and path.
func serves(entry, image string) bool {
	for _, p := range []string{"https://", "http://"} {
		entry = strings.TrimPrefix(entry, p)
	}
	entry = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(entry, "/"), "/v1"), "/v2")
	name := repository(image)
	if host, _, ok := strings.Cut(name, "/"); !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		name = "index.docker.io/" + name
	}
	return name == entry || strings.HasPrefix(name, entry+"/") || entry == "docker.io" && strings.HasPrefix(name, "index.docker.io/")
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

package credential

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sextant-k8s/sextant/pkg/kubelet/statefile"
)

// Records tells who may use an image which the node has. They lie in files of upstream's format and place, so that either
// kubelet goes on with what the other wrote.
type Records struct {
	pulling, pulled string
	policy          kubeletv1beta1.ImagePullCredentialsVerificationPolicy
	allowed         []string
	log             *slog.Logger

	// mu is held over every look at the files: there are few pulls, and each takes seconds.
	mu      sync.Mutex
	intents map[string]int
}

// NewRecords opens the records below a kubelet's folder. allowed are images without tag, or all below a path with /*.
func NewRecords(root string, policy kubeletv1beta1.ImagePullCredentialsVerificationPolicy, allowed []string, log *slog.Logger) (*Records, error) {
	switch policy {
	case "":
		policy = kubeletv1beta1.NeverVerifyPreloadedImages
	case kubeletv1beta1.NeverVerify, kubeletv1beta1.NeverVerifyPreloadedImages, kubeletv1beta1.NeverVerifyAllowlistedImages, kubeletv1beta1.AlwaysVerify:
	default:
		return nil, fmt.Errorf("imagePullCredentialsVerificationPolicy %q: want NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages or AlwaysVerify", policy)
	}
	if len(allowed) > 0 && policy != kubeletv1beta1.NeverVerifyAllowlistedImages {
		return nil, fmt.Errorf("preloadedImagesVerificationAllowlist is for the policy %s: imagePullCredentialsVerificationPolicy is %s", kubeletv1beta1.NeverVerifyAllowlistedImages, policy)
	}
	for _, a := range allowed {
		if plain := strings.TrimSuffix(a, "/*"); plain == "" || strings.Contains(plain, "*") || repository(plain) != plain {
			return nil, fmt.Errorf("preloadedImagesVerificationAllowlist %q: want an image without tag and digest, or a path which ends with /*", a)
		}
	}
	r := &Records{pulling: filepath.Join(root, "image_manager", "pulling"), pulled: filepath.Join(root, "image_manager", "pulled"),
		policy: policy, allowed: allowed, log: log, intents: map[string]int{}}
	for _, d := range []string{r.pulling, r.pulled} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("making the folder of pulled images: %w", err)
		}
	}
	return r, nil
}

func file(dir, name string) string {
	return filepath.Join(dir, fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(name))))
}

// May tells whether a pod may use an image that is here: ref is how the runtime calls it, have asks for what the pod has
// for its registry.
func (r *Records) May(image, ref string, have func() []Credential) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, err := r.read(ref)
	if err != nil {
		r.log.Warn("reading who pulled an image", "image", image, "err", err)
		return false
	}
	ours := rec != nil || r.intents[image] > 0
	if !ours {
		_, err := os.Stat(file(r.pulling, image))
		ours = err == nil
	}
	if !r.verifies(image, ours) {
		return true
	}
	if rec == nil {
		return false
	}
	known, ok := rec.CredentialMapping[repository(image)]
	if !ok {
		return false
	}
	if known.NodePodsAccessible {
		return true
	}
	for _, c := range have() {
		switch {
		case c.Account != nil && slices.Contains(known.KubernetesServiceAccounts, *c.Account):
			return true
		case c.Secret == nil:
			continue
		}
		for _, k := range known.KubernetesSecrets {
			same := k.UID == c.Secret.UID && k.Namespace == c.Secret.Namespace && k.Name == c.Secret.Name
			if !same && (k.CredentialHash == "" || k.CredentialHash != c.Secret.CredentialHash) {
				continue
			}
			if k != *c.Secret {
				// The same login elsewhere, or another in the same place: the next pod finds it written.
				r.add(rec, image, c)
			}
			return true
		}
	}
	return false
}

// verifies tells whether the policy wants to know who uses an image; ours are those this kubelet, or one before it, pulled.
func (r *Records) verifies(image string, ours bool) bool {
	switch r.policy {
	case kubeletv1beta1.NeverVerify:
		return false
	case kubeletv1beta1.AlwaysVerify:
		return true
	case kubeletv1beta1.NeverVerifyAllowlistedImages:
		name := repository(image)
		return ours || !slices.ContainsFunc(r.allowed, func(a string) bool {
			below, all := strings.CutSuffix(a, "*")
			return name == a || all && strings.HasPrefix(name, below)
		})
	}
	return ours
}

// Begin writes down that an image is about to be pulled: if the kubelet dies before Done, nobody takes the image for one
// that was always here.
func (r *Records) Begin(image string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.intents[image]++
	if r.intents[image] > 1 {
		return nil
	}
	err := statefile.Write(file(r.pulling, image), kubeletv1beta1.ImagePullIntent{TypeMeta: typeMeta("ImagePullIntent"), Image: image})
	if err != nil {
		r.end(image)
	}
	return err
}

// Done writes down what opened the registry; nil is that it stood open.
func (r *Records) Done(image, ref string, with *Credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, err := r.read(ref)
	if err != nil {
		r.log.Warn("reading who pulled an image", "image", image, "err", err)
	}
	if rec == nil {
		rec = &kubeletv1beta1.ImagePulledRecord{ImageRef: ref}
	}
	c := Credential{}
	if with != nil {
		c = *with
	}
	if r.add(rec, image, c) {
		r.end(image)
	}
}

// Failed forgets that an image was to be pulled: it did not come.
func (r *Records) Failed(image string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(image)
}

// end takes back one intent; the last one's file goes.
func (r *Records) end(image string) {
	if r.intents[image]--; r.intents[image] > 0 {
		return
	}
	delete(r.intents, image)
	if err := os.Remove(file(r.pulling, image)); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Warn("forgetting that an image was to be pulled", "image", image, "err", err)
	}
}

// add enters one credential into a record and writes it; it tells whether it stands on disk.
func (r *Records) add(rec *kubeletv1beta1.ImagePulledRecord, image string, c Credential) bool {
	name := repository(image)
	known := rec.CredentialMapping[name]
	switch {
	case known.NodePodsAccessible:
	case c.Secret != nil:
		known.KubernetesSecrets = slices.DeleteFunc(slices.Clone(known.KubernetesSecrets), func(k kubeletv1beta1.ImagePullSecret) bool {
			return k.UID == c.Secret.UID && k.Namespace == c.Secret.Namespace && k.Name == c.Secret.Name
		})
		known.KubernetesSecrets = append(known.KubernetesSecrets, *c.Secret)
	case c.Account != nil:
		if !slices.Contains(known.KubernetesServiceAccounts, *c.Account) {
			known.KubernetesServiceAccounts = append(slices.Clone(known.KubernetesServiceAccounts), *c.Account)
		}
	default:
		known = kubeletv1beta1.ImagePullCredentials{NodePodsAccessible: true}
	}
	if rec.CredentialMapping == nil {
		rec.CredentialMapping = map[string]kubeletv1beta1.ImagePullCredentials{}
	}
	rec.CredentialMapping[name] = known
	rec.TypeMeta, rec.LastUpdatedTime = typeMeta("ImagePulledRecord"), metav1.Now()
	if err := statefile.Write(file(r.pulled, rec.ImageRef), rec); err != nil {
		r.log.Warn("writing who pulled an image", "image", image, "err", err)
		return false
	}
	return true
}

// Keep drops the records of images which are no more. Those written since a moment before the images were listed stay.
func (r *Records) Keep(refs []string, listed time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	here := map[string]bool{}
	for _, ref := range refs {
		here[filepath.Base(file("", ref))] = true
	}
	entries, err := os.ReadDir(r.pulled)
	if err != nil {
		r.log.Warn("reading the folder of pulled images", "err", err)
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || here[e.Name()] || !info.ModTime().Before(listed) {
			continue
		}
		if err := os.Remove(filepath.Join(r.pulled, e.Name())); err != nil {
			r.log.Warn("removing the record of an image which is gone", "err", err)
		}
	}
}

// read is the record of an image, nil when there is none.
func (r *Records) read(ref string) (*kubeletv1beta1.ImagePulledRecord, error) {
	rec := &kubeletv1beta1.ImagePulledRecord{}
	ok, err := statefile.Read(file(r.pulled, ref), rec)
	if !ok && err == nil {
		return nil, nil
	}
	if err == nil && rec.ImageRef != ref {
		err = fmt.Errorf("it is of %q", rec.ImageRef)
	}
	if err != nil {
		return nil, fmt.Errorf("the record %s is broken, and the image is pulled anew: %w", file(r.pulled, ref), err)
	}
	return rec, nil
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{Kind: kind, APIVersion: kubeletv1beta1.SchemeGroupVersion.String()}
}

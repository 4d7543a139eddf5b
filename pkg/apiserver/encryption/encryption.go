// Package encryption keeps what lies in etcd unreadable to those who have only etcd.
//
// The flow: a stored key tells its resource, the resource its providers; the first provider seals what is written, and any
// of them opens what is read, by the prefix the value starts with, as upstream writes them. The file is looked at again
// and again if asked; a new one that is right takes the old one's place at once, a wrong one is told of and changes
// nothing. A Room is shared by all requests: what it holds is replaced whole.
package encryption

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/storage/value"
)

// Config says which file holds the configuration.
type Config struct {
	File   string // "" = nothing is encrypted
	Reload bool   // follow the file
	// Folders are the places of resources below the store's prefix, with a trailing slash. Others are taken for custom
	// resources, stored as group/resource/.
	Folders map[string]schema.GroupResource
}

// Room seals and opens.
type Room struct {
	c   Config
	now atomic.Pointer[rules]
	end atomic.Pointer[context.CancelFunc] // of what the rules of now keep running
}

// rules are one reading of the file.
type rules struct {
	sum  [32]byte
	by   map[schema.GroupResource]value.Transformer // resources and wildcards
	kms  []*keeper
	fold map[string]schema.GroupResource
}

// New reads the configuration; the answer is nil if there is none.
func New(c Config) (*Room, error) {
	if c.File == "" {
		if c.Reload {
			return nil, errors.New("--encryption-provider-config-automatic-reload needs --encryption-provider-config")
		}
		return nil, nil
	}
	r := &Room{c: c}
	if _, err := r.read(); err != nil {
		return nil, fmt.Errorf("reading --encryption-provider-config: %w", err)
	}
	return r, nil
}

// Close ends what keeps the keys of services.
func (r *Room) Close() {
	if r != nil {
		if end := r.end.Load(); end != nil {
			(*end)()
		}
	}
}

// follow is how often the file is looked at.
const follow = 5 * time.Second

// Run follows the file until ctx ends.
func (r *Room) Run(ctx context.Context) error {
	if r == nil || !r.c.Reload {
		<-ctx.Done()
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(follow):
		}
		switch changed, err := r.read(); {
		case err != nil:
			slog.Error("the encryption configuration is not taken over", "file", r.c.File, "err", err)
		case changed:
			slog.Info("the encryption configuration was taken over", "file", r.c.File)
		}
	}
}

// read takes the file over if it changed.
func (r *Room) read() (changed bool, err error) {
	data, err := os.ReadFile(r.c.File)
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(data)
	if was := r.now.Load(); was != nil && was.sum == sum {
		return false, nil
	}
	conf, err := decode(data, r.c.Reload)
	if err != nil {
		return false, fmt.Errorf("%s: %w", r.c.File, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	now := &rules{sum: sum, by: map[schema.GroupResource]value.Transformer{}, fold: r.c.Folders}
	if err := now.fill(ctx, conf); err != nil {
		cancel()
		return false, fmt.Errorf("%s: %w", r.c.File, err)
	}
	if was := r.now.Load(); was != nil && len(was.kms) > 0 {
		for _, k := range now.kms {
			if err := k.state().err; err != nil {
				cancel()
				return false, fmt.Errorf("the key service %s does not answer: %w", k.name, err)
			}
		}
	}
	r.now.Store(now)
	if before := r.end.Swap(&cancel); before != nil {
		time.AfterFunc(time.Minute, *before) // who took the old rules may be using them still
	}
	return true, nil
}

var codecs = func() serializer.CodecFactory {
	s := runtime.NewScheme()
	install.Install(s)
	return serializer.NewCodecFactory(s, serializer.EnableStrict)
}()

func decode(data []byte, reload bool) (*apiserver.EncryptionConfiguration, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("the file is empty")
	}
	obj, gvk, err := codecs.UniversalDecoder().Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	conf, ok := obj.(*apiserver.EncryptionConfiguration)
	if !ok {
		return nil, fmt.Errorf("it holds a %s, not an EncryptionConfiguration", gvk.Kind)
	}
	return conf, validation.ValidateEncryptionConfiguration(conf, reload).ToAggregate()
}

// The wildcards: every resource of a group, and everything.
const every = "*"

func (r *rules) fill(ctx context.Context, conf *apiserver.EncryptionConfiguration) error {
	lists := map[schema.GroupResource][]value.PrefixTransformer{}
	var order []schema.GroupResource
	for _, res := range conf.Resources {
		providers, err := r.providers(ctx, res.Providers)
		if err != nil {
			return err
		}
		for _, name := range res.Resources {
			gr := schema.ParseGroupResource(name)
			for _, broad := range []schema.GroupResource{{Group: gr.Group, Resource: every}, {Group: every, Resource: every}} {
				if _, masked := lists[broad]; masked && broad != gr {
					return fmt.Errorf("resource %q is masked by an earlier rule: put wildcards last", name)
				}
			}
			if _, ok := lists[gr]; !ok {
				order = append(order, gr)
			}
			lists[gr] = append(lists[gr], providers...)
		}
	}
	for _, gr := range order {
		r.by[gr] = value.NewPrefixTransformers(errors.New("no provider of the resource knows the value's prefix"), lists[gr]...)
	}
	return nil
}

// of answers what seals and opens a key, nil for what is stored as it is.
func (r *rules) of(key string) value.Transformer {
	gr, ok := r.resource(key)
	if !ok {
		return nil // what servers tell each other is of no resource
	}
	for _, k := range []schema.GroupResource{gr, {Group: gr.Group, Resource: every}, {Group: every, Resource: every}} {
		if t := r.by[k]; t != nil {
			return t
		}
	}
	return nil
}

// resource is whose key it is.
func (r *rules) resource(key string) (gr schema.GroupResource, ok bool) {
	first, rest, _ := strings.Cut(key, "/")
	if gr, ok := r.fold[first+"/"]; ok {
		return gr, true
	}
	second, _, _ := strings.Cut(rest, "/")
	if gr, ok := r.fold[first+"/"+second+"/"]; ok {
		return gr, true
	}
	return schema.GroupResource{Group: first, Resource: second}, strings.Contains(first, ".")
}

// sealed starts every encrypted value.
var sealed = []byte("k8s:enc:")

// Sealed tells whether the values of a key are encrypted, or may have been.
func (r *Room) Sealed(key string) bool { return r != nil && r.now.Load().of(key) != nil }

// Seal answers what to store. key is below the store's prefix, path is the whole key, which ties the value to its place.
func (r *Room) Seal(ctx context.Context, key, path string, plain []byte) ([]byte, error) {
	if r == nil {
		return plain, nil
	}
	t := r.now.Load().of(key)
	if t == nil {
		return plain, nil
	}
	out, err := t.TransformToStorage(ctx, plain, value.DefaultContext(path))
	if err != nil {
		return nil, fmt.Errorf("encrypting %s: %w", key, err)
	}
	return out, nil
}

// Open answers what was stored; stale tells that it should be written again, since another provider or key comes first
// by now. wait tells that an error may pass by itself: a key service did not answer.
func (r *Room) Open(ctx context.Context, key, path string, stored []byte) (plain []byte, stale, wait bool, err error) {
	if r == nil {
		if bytes.HasPrefix(stored, sealed) {
			return nil, false, false, fmt.Errorf("%s is encrypted, and there is no --encryption-provider-config", key)
		}
		return stored, false, false, nil
	}
	t := r.now.Load().of(key)
	if t == nil {
		if bytes.HasPrefix(stored, sealed) {
			return nil, false, false, fmt.Errorf("%s is encrypted, and its resource has no provider", key)
		}
		return stored, false, false, nil
	}
	plain, stale, err = t.TransformFromStorage(ctx, stored, value.DefaultContext(path))
	if err != nil {
		return nil, false, bytes.HasPrefix(stored, []byte(prefixKMS)), fmt.Errorf("decrypting %s: %w", key, err)
	}
	return plain, stale, false, nil
}

// Healthy answers an error when a key service does not answer.
func (r *Room) Healthy() error {
	if r == nil {
		return nil
	}
	var errs []error
	for _, k := range r.now.Load().kms {
		if err := k.state().err; err != nil {
			errs = append(errs, fmt.Errorf("the key service %s: %w", k.name, err))
		}
	}
	return errors.Join(errs...)
}

package encryption

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2"
	kmstypes "k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/v2"
	"k8s.io/kms/pkg/service"
)

// How often a key service is asked for its key, how often while it does not answer, and how long its last key may seal
// after that.
const (
	probe      = time.Minute
	probeAgain = 10 * time.Second
	sealFor    = 3 * time.Minute
)

// keeper holds the seed that values are sealed with, itself sealed by a key service. A new key of the service makes a
// new seed.
type keeper struct {
	name    string
	service service.Service
	held    atomic.Pointer[held]
}

// held is a keeper's state.
type held struct {
	kmsv2.State
	err error // of the last question; what is held goes on opening, and sealing for a while
}

func (k *keeper) state() *held { return k.held.Load() }

// service makes the provider of a key service, which may start later than this server.
func (r *rules) service(ctx context.Context, c *apiserver.KMSConfiguration) (value.Transformer, error) {
	if c.APIVersion != "v2" {
		return nil, fmt.Errorf("the key service %s speaks %q: only v2 is served", c.Name, c.APIVersion)
	}
	timeout := 3 * time.Second
	if c.Timeout != nil {
		timeout = c.Timeout.Duration
	}
	s, err := kmsv2.NewGRPCService(ctx, c.Endpoint, c.Name, timeout)
	if err != nil {
		return nil, fmt.Errorf("the key service %s: %w", c.Name, err)
	}
	k := &keeper{name: c.Name, service: s}
	k.held.Store(&held{State: kmsv2.State{KMSProviderName: c.Name}, err: errors.New("it was not asked yet")})
	k.ask(ctx)
	go k.follow(ctx)
	r.kms = append(r.kms, k)
	return kmsv2.NewEnvelopeTransformer(s, c.Name, k.current, ""), nil
}

// follow asks until ctx ends.
func (k *keeper) follow(ctx context.Context) {
	for {
		wait := probe
		if k.state().err != nil {
			wait = probeAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			k.ask(ctx)
		}
	}
}

// ask asks the service which key it has, and makes a new seed if that is another one.
func (k *keeper) ask(ctx context.Context) {
	now := *k.state()
	now.err = k.renew(ctx, &now.State)
	k.held.Store(&now)
}

func (k *keeper) renew(ctx context.Context, s *kmsv2.State) error {
	until := kmsv2.GetNowFunc(k.name)().Add(sealFor)
	status, err := k.service.Status(ctx)
	switch {
	case err != nil:
		return err
	case status.Healthz != "ok":
		return fmt.Errorf("it says of itself: %s", status.Healthz)
	case status.Version != kmsv2.KMSAPIVersionv2 && status.Version != kmsv2.KMSAPIVersionv2beta1:
		return fmt.Errorf("it speaks %q, not v2", status.Version)
	}
	if _, err := kmsv2.ValidateKeyID(status.KeyID); err != nil {
		return err
	}
	if s.Transformer != nil && s.EncryptedObjectKeyID == status.KeyID {
		s.ExpirationTimestamp = until
		return nil
	}
	id := string(uuid.NewUUID())
	t, sealed, cacheKey, err := kmsv2.GenerateTransformer(ctx, id, k.service, true)
	if err != nil {
		return err
	}
	if sealed.KeyID != status.KeyID {
		return errors.New("its key changed while it was asked")
	}
	*s = kmsv2.State{
		Transformer: t, EncryptedObjectKeyID: sealed.KeyID, EncryptedObjectEncryptedDEKSource: sealed.EncryptedDEKSource,
		EncryptedObjectAnnotations: sealed.Annotations, EncryptedObjectEncryptedDEKSourceType: kmstypes.EncryptedDEKSourceType_HKDF_SHA256_XNONCE_AES_GCM_SEED,
		UID: id, ExpirationTimestamp: until, CacheKey: cacheKey, KMSProviderName: k.name,
	}
	return nil
}

// current is what seals and opens now.
func (k *keeper) current() (kmsv2.State, error) {
	s := k.state()
	if s.Transformer == nil {
		return kmsv2.State{}, fmt.Errorf("the key service %s has given no key: %w", k.name, s.err)
	}
	return s.State, nil
}

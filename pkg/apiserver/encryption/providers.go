package encryption

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/storage/value"
	kaes "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	"k8s.io/apiserver/pkg/storage/value/encrypt/secretbox"
)

// What sealed values start with; the name of the key or service follows, and a colon.
const (
	prefixCBC       = "k8s:enc:aescbc:v1:"
	prefixGCM       = "k8s:enc:aesgcm:v1:"
	prefixSecretbox = "k8s:enc:secretbox:v1:"
	prefixKMS       = "k8s:enc:kms:"
	prefixKMSv2     = prefixKMS + "v2:"
)

// providers are the ways of one rule, the one that seals first.
func (r *rules) providers(ctx context.Context, list []apiserver.ProviderConfiguration) ([]value.PrefixTransformer, error) {
	var out []value.PrefixTransformer
	for _, p := range list {
		var t value.Transformer
		var err error
		prefix := ""
		switch {
		case p.AESCBC != nil:
			prefix = prefixCBC
			t, err = keys(p.AESCBC.Keys, blocks(func(b cipher.Block) (value.Transformer, error) { return kaes.NewCBCTransformer(b), nil }))
		case p.AESGCM != nil:
			prefix = prefixGCM
			t, err = keys(p.AESGCM.Keys, blocks(kaes.NewGCMTransformer))
		case p.Secretbox != nil:
			prefix = prefixSecretbox
			t, err = keys(p.Secretbox.Keys, box)
		case p.KMS != nil:
			prefix = prefixKMSv2 + p.KMS.Name + ":"
			t, err = r.service(ctx, p.KMS)
		case p.Identity != nil:
			t = identity{}
		default:
			err = errors.New("a provider names none of aescbc, aesgcm, secretbox, kms, identity")
		}
		if err != nil {
			return nil, err
		}
		out = append(out, value.PrefixTransformer{Prefix: []byte(prefix), Transformer: t})
	}
	return out, nil
}

// keys seal with the first and open with any, by the name that stands before the value.
func keys(list []apiserver.Key, of func(secret []byte) (value.Transformer, error)) (value.Transformer, error) {
	out := make([]value.PrefixTransformer, 0, len(list))
	for _, k := range list {
		secret, err := base64.StdEncoding.DecodeString(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("the secret of key %s is not base64", k.Name) // the error might show some of it
		}
		t, err := of(secret)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", k.Name, err)
		}
		out = append(out, value.PrefixTransformer{Prefix: []byte(k.Name + ":"), Transformer: t})
	}
	return value.NewPrefixTransformers(errors.New("no key of the name that the value was sealed with"), out...), nil
}

func blocks(of func(cipher.Block) (value.Transformer, error)) func([]byte) (value.Transformer, error) {
	return func(secret []byte) (value.Transformer, error) {
		b, err := aes.NewCipher(secret)
		if err != nil {
			return nil, err
		}
		return of(b)
	}
}

func box(secret []byte) (value.Transformer, error) {
	if len(secret) != 32 {
		return nil, fmt.Errorf("it has %d bytes, secretbox takes 32", len(secret))
	}
	return secretbox.NewSecretboxTransformer([32]byte(secret)), nil
}

// identity stores what it is given.
type identity struct{}

// TransformFromStorage opens what is not sealed.
func (identity) TransformFromStorage(_ context.Context, data []byte, _ value.Context) ([]byte, bool, error) {
	if bytes.HasPrefix(data, sealed) {
		return nil, false, errors.New("the value is encrypted, and no provider of its resource knows how")
	}
	return data, false, nil
}

// TransformToStorage changes nothing.
func (identity) TransformToStorage(_ context.Context, data []byte, _ value.Context) ([]byte, error) {
	return data, nil
}

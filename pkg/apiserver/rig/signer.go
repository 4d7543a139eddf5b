package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
	externaljwt "k8s.io/externaljwt/apis/v1"
)

// Signer signs service account tokens as one in another process does: it is asked at a socket. Its fields are changed by Change.
type Signer struct {
	externaljwt.UnimplementedExternalJWTSignerServer

	mu      sync.Mutex
	Keys    map[string]*ecdsa.PrivateKey
	Hidden  map[string]bool
	By      string                 // the key that signs
	Header  map[string]any         // in the place of the right one
	Spoil   func(string) string    // what becomes of a signature
	Hint    int64                  // seconds
	Answer  []*externaljwt.Key     // in the place of keys
	MaxAge  int64                  // seconds
	Fetched int                    // questions for the keys
	Signed  map[string]any         // the claims that were signed last
	Down    error                  // what every question is answered
	Stamp   *timestamppb.Timestamp // of the keys
}

// NewSigner is one with a key "one"; Serve lets it be asked.
func NewSigner(t testing.TB) *Signer {
	t.Helper()
	s := &Signer{Keys: map[string]*ecdsa.PrivateKey{}, Hidden: map[string]bool{}, Hint: 3600, MaxAge: 7200, Stamp: timestamppb.Now()}
	s.Add(t, "one")
	return s
}

// Add makes a key, which signs from now on.
func (s *Signer) Add(t testing.TB, id string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Keys[id], s.By = k, id
}

// Serve serves at a socket until the test ends.
func (s *Signer) Serve(t testing.TB, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	externaljwt.RegisterExternalJWTSignerServer(g, s)
	go func() { _ = g.Serve(l) }() // it ends with the test
	t.Cleanup(g.Stop)
}

// Metadata tells how long its tokens last.
func (s *Signer) Metadata(context.Context, *externaljwt.MetadataRequest) (*externaljwt.MetadataResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &externaljwt.MetadataResponse{MaxTokenExpirationSeconds: s.MaxAge}, s.Down
}

// FetchKeys tells its keys.
func (s *Signer) FetchKeys(context.Context, *externaljwt.FetchKeysRequest) (*externaljwt.FetchKeysResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Fetched++
	r := &externaljwt.FetchKeysResponse{Keys: s.Answer, RefreshHintSeconds: s.Hint, DataTimestamp: s.Stamp}
	if s.Answer == nil {
		for id, k := range s.Keys {
			der, err := x509.MarshalPKIXPublicKey(k.Public())
			if err != nil {
				return nil, err
			}
			r.Keys = append(r.Keys, &externaljwt.Key{KeyId: id, Key: der, ExcludeFromOidcDiscovery: s.Hidden[id]})
		}
	}
	return r, s.Down
}

// Sign signs.
func (s *Signer) Sign(_ context.Context, r *externaljwt.SignJWTRequest) (*externaljwt.SignJWTResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	claims, err := base64.RawURLEncoding.DecodeString(r.Claims)
	if err != nil {
		return nil, err
	}
	s.Signed = nil
	if err := json.Unmarshal(claims, &s.Signed); err != nil {
		return nil, err
	}
	h := s.Header
	if h == nil {
		h = map[string]any{"alg": "ES256", "kid": s.By, "typ": "JWT"}
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	out := &externaljwt.SignJWTResponse{Header: base64.RawURLEncoding.EncodeToString(raw)}
	sum := sha256.Sum256([]byte(out.Header + "." + r.Claims))
	a, b, err := ecdsa.Sign(rand.Reader, s.Keys[s.By], sum[:])
	if err != nil {
		return nil, err
	}
	out.Signature = base64.RawURLEncoding.EncodeToString(append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...))
	if s.Spoil != nil {
		out.Signature = s.Spoil(out.Signature)
	}
	return out, s.Down
}

// Change changes the signer while it is asked.
func (s *Signer) Change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

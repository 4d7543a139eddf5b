package tokens

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	externaljwt "k8s.io/externaljwt/apis/v1"
)

// What a signer in another process is held to.
const (
	startWait  = time.Minute      // how long it may take to be there when this server starts
	fetchWait  = 5 * time.Second  // how long it may take to tell its keys
	fetchAgain = 10 * time.Second // when it is asked again after it did not
	fetchPause = time.Second      // the least time between two questions for its keys
	longestID  = 1024             // bytes of a key's name
)

// external is a signer of tokens in another process, asked over a unix socket. It alone has the private keys; the public
// ones are fetched when it says that they may have changed, and when a token names one that is not known.
type external struct {
	client externaljwt.ExternalJWTSignerClient
	conn   *grpc.ClientConn
	maxAge time.Duration // of the tokens it signs

	keys    atomic.Pointer[ring]
	refresh atomic.Int64 // seconds until the keys are to be fetched again
	changed atomic.Bool  // keys since Reread was last asked

	turn  chan struct{} // held by who fetches; guards begun
	begun time.Time     // of the last fetch
}

// dial connects to the signer that listens at a socket (a path, or @ and a name of the abstract space), and waits for its
// keys for a minute at most.
func dial(ctx context.Context, socket string) (*external, error) {
	conn, err := grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"), grpc.WithUnaryInterceptor(timed),
		grpc.WithContextDialer(func(ctx context.Context, at string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", at)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}, MinConnectTimeout: 3 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("--service-account-signing-endpoint %s: %w", socket, err)
	}
	x := &external{client: externaljwt.NewExternalJWTSignerClient(conn), conn: conn, turn: make(chan struct{}, 1)}
	if err := x.meet(ctx); err != nil {
		x.close()
		return nil, fmt.Errorf("the signer at --service-account-signing-endpoint %s: %w", socket, err)
	}
	return x, nil
}

// meet learns what has to be known before the first token.
func (x *external) meet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	told := time.AfterFunc(2*time.Second, func() { slog.Warn("the external signer of tokens does not answer yet; waiting for it") })
	defer told.Stop()
	m, err := x.client.Metadata(ctx, &externaljwt.MetadataRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("asking how long its tokens may last: %w", err)
	}
	if m.MaxTokenExpirationSeconds < minLife {
		return fmt.Errorf("its tokens last %d s at most: at least %d s are needed", m.MaxTokenExpirationSeconds, minLife)
	}
	x.maxAge = time.Duration(min(m.MaxTokenExpirationSeconds, maxLife)) * time.Second
	return x.fetch(ctx, grpc.WaitForReady(true))
}

// close ends the connection.
func (x *external) close() {
	_ = x.conn.Close() // nothing is pending any more
}

// run keeps the keys fresh until ctx ends.
func (x *external) run(ctx context.Context) {
	wait := x.pause()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = x.pause()
		if err := x.again(ctx, time.Now()); err != nil && ctx.Err() == nil {
			slog.Error("the keys of the external signer of tokens cannot be fetched, going on with the old ones", "err", err)
			wait = min(wait, fetchAgain)
		}
	}
}

func (x *external) pause() time.Duration { return time.Duration(x.refresh.Load()) * time.Second }

// again fetches the keys unless somebody began to after since, or less than a second ago.
func (x *external) again(ctx context.Context, since time.Time) error {
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if now := time.Now(); x.begun.After(since) || now.Sub(x.begun) < fetchPause {
		return nil
	}
	x.begun = time.Now()
	// Others wait for the answer as well: that one of them goes does not end the question.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchWait)
	defer cancel()
	return x.fetch(ctx)
}

// fetch takes the signer's keys over, all or none.
func (x *external) fetch(ctx context.Context, opts ...grpc.CallOption) (err error) {
	defer func() { countFetch(err) }()
	r, err := x.client.FetchKeys(ctx, &externaljwt.FetchKeysRequest{}, opts...)
	if err != nil {
		return fmt.Errorf("fetching its keys: %w", err)
	}
	if r.RefreshHintSeconds <= 0 {
		return fmt.Errorf("its keys are said to hold for %d s: refresh_hint_seconds has to be more than 0", r.RefreshHintSeconds)
	}
	now := &ring{keys: map[string]crypto.PublicKey{}, hidden: map[string]bool{}}
	for _, k := range r.Keys {
		if err := now.take(k); err != nil {
			return err
		}
	}
	if r.DataTimestamp != nil {
		dataTime.WithLabelValues().Set(float64(r.DataTimestamp.AsTime().UnixNano()) / 1e9)
	}
	x.refresh.Store(min(r.RefreshHintSeconds, int64(24*time.Hour/time.Second)))
	if was := x.keys.Swap(now); was != nil && !was.equal(now) {
		x.changed.Store(true)
		slog.Info("the keys of the external signer of tokens were taken over", "keys", len(now.keys))
	}
	return nil
}

// take adds a key under the name that its signer gives it.
func (r *ring) take(k *externaljwt.Key) error {
	if k.KeyId == "" || len(k.KeyId) > longestID {
		return fmt.Errorf("one of its keys has a name of %d bytes: 1 to %d are needed", len(k.KeyId), longestID)
	}
	if _, twice := r.keys[k.KeyId]; twice {
		return fmt.Errorf("two of its keys are named %q", k.KeyId)
	}
	public, err := x509.ParsePKIXPublicKey(k.Key)
	if err != nil {
		return fmt.Errorf("reading its key %q: %w", k.KeyId, err)
	}
	alg, err := algorithm(public)
	if err != nil {
		return fmt.Errorf("its key %q: %w", k.KeyId, err)
	}
	r.keys[k.KeyId] = public
	if k.ExcludeFromOidcDiscovery {
		r.hidden[k.KeyId] = true
	} else {
		r.set.Keys = append(r.set.Keys, jose.JSONWebKey{Key: public, KeyID: k.KeyId, Algorithm: string(alg), Use: "sig"})
	}
	return nil
}

// equal tells whether two rings hold the same keys, published alike.
func (r *ring) equal(o *ring) bool {
	for id, k := range r.keys {
		if is, ok := o.keys[id].(interface{ Equal(crypto.PublicKey) bool }); !ok || !is.Equal(k) || r.hidden[id] != o.hidden[id] {
			return false
		}
	}
	return len(r.keys) == len(o.keys)
}

// with answers the keys, those that the signer has now if the named one is not known.
func (x *external) with(ctx context.Context, id string) *ring {
	if r := x.keys.Load(); r.keys[id] != nil {
		return r
	}
	if err := x.again(ctx, time.Now()); err != nil {
		slog.Warn("a key that a token names is not known, and the external signer does not tell its keys", "err", err)
	}
	return x.keys.Load()
}

// sign has a token made of claims. The claims are this server's, whatever the signer answers.
func (x *external) sign(ctx context.Context, c *Claims) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("writing claims: %w", err)
	}
	claims := base64.RawURLEncoding.EncodeToString(payload)
	r, err := x.client.Sign(ctx, &externaljwt.SignJWTRequest{Claims: claims})
	countSign(err)
	if err != nil {
		return "", fmt.Errorf("the external signer of tokens: %w", err)
	}
	id, err := readHeader(r.Header)
	if err != nil {
		return "", fmt.Errorf("the external signer of tokens answered a wrong header: %w", err)
	}
	known := x.with(ctx, id)
	if known.keys[id] == nil {
		// The keys may have been fetched just before this one was made.
		select {
		case <-time.After(fetchPause):
			known = x.with(ctx, id)
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	switch {
	case known.keys[id] == nil:
		return "", fmt.Errorf("the external signer of tokens signed with a key that it does not tell of: %q", id)
	case known.hidden[id]:
		return "", fmt.Errorf("the external signer of tokens signed with a key that it excludes from discovery: %q", id)
	}
	token := strings.Join([]string{r.Header, claims, r.Signature}, ".")
	t, err := jwt.ParseSigned(token, accepted)
	if err == nil {
		err = t.Claims(known.keys[id])
	}
	if err != nil {
		return "", errors.New("the external signer of tokens answered a wrong signature")
	}
	return token, nil
}

// readHeader checks a token's header and answers which key it names.
func readHeader(header string) (keyID string, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(header)
	if err != nil {
		return "", err
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return "", err
	}
	for name := range fields {
		if name != "alg" && name != "kid" && name != "typ" {
			return "", fmt.Errorf("it has a field %q besides alg, kid and typ", name)
		}
	}
	id, _ := fields["kid"].(string)
	alg, _ := fields["alg"].(string)
	switch {
	case fields["typ"] != "JWT":
		return "", fmt.Errorf("typ is %v, not JWT", fields["typ"])
	case id == "" || len(id) > longestID:
		return "", fmt.Errorf("kid has %d bytes: 1 to %d are needed", len(id), longestID)
	case !slices.Contains(accepted, jose.SignatureAlgorithm(alg)):
		return "", fmt.Errorf("alg is %q: give one of %v", alg, accepted)
	}
	return id, nil
}

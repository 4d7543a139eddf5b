package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
	"github.com/sextant-k8s/sextant/pkg/apiserver/request"
)

// leeway is how far clocks may differ.
const leeway = 10 * time.Second

var (
	serviceAccounts = schema.GroupResource{Resource: "serviceaccounts"}
	podsGR          = schema.GroupResource{Resource: "pods"}
	secretsGR       = schema.GroupResource{Resource: "secrets"}
	nodesGR         = schema.GroupResource{Resource: "nodes"}
)

// Verify answers whose token it is. ok is false for a token of another issuer; err says what is wrong with one of ours.
// audiences are those of the caller, the server's own if none.
func (a *Authority) Verify(ctx context.Context, env kind.Env, token string, audiences []string, now time.Time) (r *authenticator.Response, ok bool, err error) {
	if a == nil {
		return nil, false, nil
	}
	if r, ours, err := a.legacy(ctx, env, token, audiences, now); ours {
		return r, err == nil, err
	}
	c, err := a.parse(ctx, token)
	if errors.Is(err, errNotOurs) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if c.Expiry == nil || now.After(c.Expiry.Time().Add(leeway)) {
		return nil, false, errors.New("service account token has expired")
	}
	if c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time()) {
		return nil, false, errors.New("service account token is not valid yet")
	}
	if len(audiences) == 0 {
		audiences = a.audiences
	}
	meant := []string(c.Audience)
	if len(meant) == 0 {
		meant = a.audiences
	}
	common := slices.DeleteFunc(slices.Clone(meant), func(s string) bool { return !slices.Contains(audiences, s) })
	if len(common) == 0 {
		return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", meant, audiences)
	}
	if err := a.alive(ctx, env, c); err != nil {
		return nil, false, err
	}
	if w := c.Bound.WarnAfter; w != nil && now.After(w.Time()) {
		staleTokens.Inc()
		request.NotesOf(ctx).Annotate("authentication.k8s.io/stale-token", fmt.Sprintf("subject: %s, seconds after warning threshold: %d", c.Subject, int64(now.Sub(w.Time()).Seconds())))
	} else {
		validTokens.Inc()
	}
	return &authenticator.Response{Audiences: common, User: identity(c)}, true, nil
}

func identity(c *Claims) user.Info {
	b := c.Bound
	info := serviceaccount.ServiceAccountInfo{Namespace: b.Namespace, Name: b.ServiceAccount.Name, UID: b.ServiceAccount.UID}
	if c.ID != "" {
		info.CredentialID = "JTI=" + c.ID
	}
	if b.Pod != nil {
		info.PodName, info.PodUID = b.Pod.Name, b.Pod.UID
	}
	if b.Node != nil {
		info.NodeName, info.NodeUID = b.Node.Name, b.Node.UID
	}
	return info.UserInfo()
}

// alive checks that the account, and what the token is bound to, still are what they were.
func (a *Authority) alive(ctx context.Context, env kind.Env, c *Claims) error {
	b := c.Bound
	if b.Namespace == "" || b.ServiceAccount.Name == "" || c.Subject != serviceaccount.MakeUsername(b.Namespace, b.ServiceAccount.Name) {
		return errors.New("the token does not name a service account")
	}
	check := func(gr schema.GroupResource, ns string, ref *Ref) error {
		if ref == nil {
			return nil
		}
		obj, err := env.Get(ctx, gr, ns, ref.Name)
		if apierrors.IsNotFound(err) {
			// It may be so new that the cache has not seen it.
			obj, err = env.GetFresh(ctx, gr, ns, ref.Name)
		}
		if err != nil {
			return fmt.Errorf("service account token has been invalidated: %w", err)
		}
		if obj.GetUID() != types.UID(ref.UID) {
			return fmt.Errorf("the token was made for another %s %s", gr.Resource, ref.Name)
		}
		// A pod that is being deleted needs its token to the end; long after it does not.
		if d := obj.GetDeletionTimestamp(); d != nil && time.Since(d.Time) > time.Minute {
			return fmt.Errorf("the %s %s that the token was made for has been deleted", gr.Resource, ref.Name)
		}
		return nil
	}
	if err := check(serviceAccounts, b.Namespace, &b.ServiceAccount); err != nil {
		return err
	}
	if err := check(podsGR, b.Namespace, b.Pod); err != nil {
		return err
	}
	if err := check(secretsGR, b.Namespace, b.Secret); err != nil {
		return err
	}
	if b.Pod != nil {
		return nil // the pod stands for its node
	}
	return check(nodesGR, "", b.Node)
}

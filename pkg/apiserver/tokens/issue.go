package tokens

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// The bounds of a token's life, in seconds. A pod's token that asks for the usual hour and a bit is given a year, with a
// warning from the hour on: programs that never reread theirs go on working.
const (
	minLife      = 600
	maxLife      = 1 << 32
	usualLife    = 3607
	extendedLife = 365 * 24 * 3600
)

// Request serves serviceaccounts/token.
func (a *Authority) Request(op *kind.Op, name string, body runtime.Object) (runtime.Object, error) {
	r := body.(*authenticationv1.TokenRequest)
	if !a.Issues() {
		return nil, apierrors.NewInternalError(errors.New("this server issues no tokens: it was started without --service-account-signing-key-file"))
	}
	obj, err := op.Env.GetFresh(op.Ctx, serviceAccounts, op.Namespace, name)
	if err != nil {
		return nil, err
	}
	if r.Spec.ExpirationSeconds == nil {
		r.Spec.ExpirationSeconds = new(int64(3600))
	}
	if errs := check(r); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, "", errs)
	}
	life := *r.Spec.ExpirationSeconds
	if m := int64(a.maxLife / time.Second); m > 0 {
		life = min(life, m)
	}
	c := &Claims{Bound: Bound{Namespace: op.Namespace, ServiceAccount: Ref{Name: name, UID: string(obj.GetUID())}}}
	if err := a.bind(op, name, r.Spec.BoundObjectRef, c); err != nil {
		return nil, err
	}
	audiences := r.Spec.Audiences
	if len(audiences) == 0 {
		audiences = a.audiences
	}
	now := op.Now
	shown := now.Add(time.Duration(life) * time.Second)
	expires := shown
	if !a.strict && life == usualLife && c.Bound.Pod != nil && sameSet(audiences, a.audiences) {
		c.Bound.WarnAfter = jwt.NewNumericDate(shown)
		expires = now.Add(extendedLife * time.Second)
		if x := a.external; x != nil && x.maxAge < extendedLife*time.Second {
			expires = now.Add(x.maxAge)
		}
	}
	c.Claims = jwt.Claims{
		Subject: serviceaccount.MakeUsername(op.Namespace, name), Audience: audiences, ID: string(uuid.NewUUID()),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
	}
	out := r.DeepCopy()
	out.Name, out.Namespace = name, op.Namespace
	out.CreationTimestamp = metav1.NewTime(now.Truncate(time.Second))
	out.Spec.Audiences, out.Spec.ExpirationSeconds = audiences, &life
	out.Status = authenticationv1.TokenRequestStatus{ExpirationTimestamp: metav1.NewTime(shown.Truncate(time.Second))}
	if op.DryRun {
		return out, nil
	}
	if out.Status.Token, err = a.Sign(op.Ctx, c); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return out, nil
}

func check(r *authenticationv1.TokenRequest) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	switch n := *r.Spec.ExpirationSeconds; {
	case n < minLife:
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), n, "may not specify a duration less than 10 minutes"))
	case n > maxLife:
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), n, "may not specify a duration larger than 2^32 seconds"))
	}
	return errs
}

// bind ties the claims to the object a request names.
func (a *Authority) bind(op *kind.Op, account string, ref *authenticationv1.BoundObjectReference, c *Claims) error {
	if ref == nil {
		return nil
	}
	take := func(gr schema.GroupResource, ns string) (kind.Object, *Ref, error) {
		obj, err := op.Env.GetFresh(op.Ctx, gr, ns, ref.Name)
		if err != nil {
			return nil, nil, err
		}
		if ref.UID != "" && obj.GetUID() != ref.UID {
			return nil, nil, apierrors.NewConflict(gr, ref.Name, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
		}
		return obj, &Ref{Name: ref.Name, UID: string(obj.GetUID())}, nil
	}
	var err error
	switch schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind) {
	case corev1.SchemeGroupVersion.WithKind("Pod"):
		var obj kind.Object
		if obj, c.Bound.Pod, err = take(podsGR, op.Namespace); err != nil {
			return err
		}
		p := obj.(*corev1.Pod)
		if p.Spec.ServiceAccountName != account {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account))
		}
		if p.Spec.NodeName != "" {
			c.Bound.Node = &Ref{Name: p.Spec.NodeName}
			if n, err := op.Env.Get(op.Ctx, nodesGR, "", p.Spec.NodeName); err == nil {
				c.Bound.Node.UID = string(n.GetUID())
			}
		}
	case corev1.SchemeGroupVersion.WithKind("Secret"):
		_, c.Bound.Secret, err = take(secretsGR, op.Namespace)
	case corev1.SchemeGroupVersion.WithKind("Node"):
		_, c.Bound.Node, err = take(nodesGR, "")
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", strings.Trim(ref.APIVersion+", Kind="+ref.Kind, ", ")))
	}
	return err
}

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		found := false
		for _, y := range b {
			found = found || x == y
		}
		if !found {
			return false
		}
	}
	return true
}

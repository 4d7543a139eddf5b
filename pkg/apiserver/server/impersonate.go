package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// A request may be made in the name of another. Who may be whom, and for which requests, is a right of one of some modes, tried in
// this order: each but the last is narrow, and needs the verb impersonate-on:<mode>:<verb> on what is asked for besides the
// verb impersonate:<mode> on whom one wants to be. The last is the right from before there were modes: to be somebody for any request.
var guises = []guise{
	{"associated-node", func(want *user.DefaultInfo, asks user.Info) bool {
		node, ok := nodeName(want.Name)
		_, _, err := serviceaccount.SplitUsername(asks.GetName())
		return ok && nameOnly(want) && err == nil && slices.Equal(asks.GetExtra()[serviceaccount.NodeNameKey], []string{node})
	}},
	{"arbitrary-node", func(want *user.DefaultInfo, _ user.Info) bool {
		_, ok := nodeName(want.Name)
		return ok && nameOnly(want)
	}},
	{"serviceaccount", func(want *user.DefaultInfo, _ user.Info) bool {
		_, _, err := serviceaccount.SplitUsername(want.Name)
		return err == nil && nameOnly(want)
	}},
	{"user-info", func(want *user.DefaultInfo, _ user.Info) bool {
		_, node := nodeName(want.Name)
		_, _, err := serviceaccount.SplitUsername(want.Name)
		return !node && err != nil
	}},
	{"", func(*user.DefaultInfo, user.Info) bool { return true }},
}

// guise is a mode and whom it is about.
type guise struct {
	mode string // "" = the one without limits
	fits func(want *user.DefaultInfo, asks user.Info) bool
}

func nameOnly(u *user.DefaultInfo) bool {
	return u.UID == "" && len(u.Groups) == 0 && len(u.Extra) == 0
}

func nodeName(u string) (string, bool) {
	name, ok := strings.CutPrefix(u, "system:node:")
	return name, ok && len(apivalidation.NameIsDNSSubdomain(name, false)) == 0
}

// impersonates tells whether a request wants to be somebody else's.
func impersonates(r *http.Request) bool {
	for h := range r.Header {
		if strings.HasPrefix(h, "Impersonate-") {
			return true
		}
	}
	return false
}

// wanted answers who a request wants to be, nil if nobody, and takes the headers off that say so.
func wanted(h http.Header) (*user.DefaultInfo, error) {
	out := &user.DefaultInfo{Name: h.Get("Impersonate-User"), UID: h.Get("Impersonate-Uid"), Groups: h.Values("Impersonate-Group")}
	extra := false
	for name, values := range h {
		key, ok := strings.CutPrefix(name, "Impersonate-Extra-")
		if !ok {
			continue
		}
		extra = true
		key = strings.ToLower(key)
		if plain, err := url.PathUnescape(key); err == nil {
			key = plain
		}
		if out.Extra == nil {
			out.Extra = map[string][]string{}
		}
		out.Extra[key] = append(out.Extra[key], values...)
	}
	if out.Name == "" {
		if out.UID == "" && len(out.Groups) == 0 && !extra {
			return nil, nil
		}
		return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %#v without impersonating a user name", out))
	}
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") {
			h.Del(name)
		}
	}
	return out, nil
}

// impersonate answers the user that a request wants to be, if who asks may be them, and the verb that allowed it, "" for the
// one without limits.
func (c *chain) impersonate(r *http.Request, of authorizer.AttributesRecord) (u user.Info, constraint string, err error) {
	want, err := wanted(r.Header)
	if err != nil || want == nil {
		return of.User, "", err
	}
	for try := range 2 {
		var first error
		for _, g := range guises {
			if !g.fits(want, of.User) {
				continue
			}
			got, err := c.disguise(r.Context(), g.mode, want, of)
			if err == nil {
				if g.mode != "" {
					constraint = "impersonate:" + g.mode
				}
				return got, constraint, nil
			}
			if first == nil {
				first = err
			}
		}
		err = first
		if try == 0 {
			if ferr := c.s.cache.FreshAll(r.Context()); ferr != nil { // a right given a moment ago counts, as for the request itself
				break
			}
		}
	}
	return nil, "", err
}

// disguise answers the user that somebody wants to be, if a mode allows it.
func (c *chain) disguise(ctx context.Context, mode string, want *user.DefaultInfo, of authorizer.AttributesRecord) (user.Info, error) {
	asks, verb, narrow := of.User, "impersonate", mode != ""
	if mode == "associated-node" {
		// The right is to be whichever node one runs on: of which it is made sure above, so neither name nor extras decide.
		asks = &user.DefaultInfo{Name: asks.GetName(), UID: asks.GetUID(), Groups: asks.GetGroups(), Extra: map[string][]string{
			"authentication.kubernetes.io/associated-node-keys": slices.Sorted(maps.Keys(asks.GetExtra())),
		}}
	}
	if narrow {
		verb += ":" + mode
		on := of
		on.User, on.Verb = asks, "impersonate-on:"+mode+":"+of.Verb
		if err := c.may(ctx, on); err != nil {
			return nil, err
		}
	}
	got := *want
	for _, a := range asked(want, narrow, &got) {
		a.User, a.Verb, a.ResourceRequest = asks, verb, true
		if mode == "associated-node" {
			a.Name = "*"
		}
		if err := c.may(ctx, a); err != nil {
			return nil, err
		}
	}
	if narrow {
		if err := tooMuch(asks, verb, want); err != nil {
			return nil, err
		}
	}
	switch {
	case got.Name == user.Anonymous:
		got.Groups = with(got.Groups, user.AllUnauthenticated)
	case !slices.Contains(got.Groups, user.AllUnauthenticated):
		got.Groups = with(got.Groups, user.AllAuthenticated)
	}
	return &got, nil
}

func with(groups []string, g string) []string {
	if slices.Contains(groups, g) {
		return groups
	}
	return append(slices.Clone(groups), g)
}

// asked are the questions whether one may be somebody: name, uid, groups, extras. Groups that follow from the name are given to got.
func asked(want *user.DefaultInfo, narrow bool, got *user.DefaultInfo) (out []authorizer.AttributesRecord) {
	group, version := "", "v1"
	if narrow {
		group = authenticationv1.GroupName
	}
	who := authorizer.AttributesRecord{APIGroup: group, APIVersion: version, Resource: "users", Name: want.Name}
	if node, ok := nodeName(want.Name); ok && narrow {
		who.Resource, who.Name = "nodes", node
		got.Groups = []string{user.NodesGroup}
	}
	if ns, name, err := serviceaccount.SplitUsername(want.Name); err == nil {
		who.Resource, who.Namespace, who.Name = "serviceaccounts", ns, name
		if len(want.Groups) == 0 {
			got.Groups = serviceaccount.MakeGroupNames(ns)
		}
	}
	out = append(out, who)
	own := func(resource, sub, name string) {
		out = append(out, authorizer.AttributesRecord{APIGroup: authenticationv1.GroupName, APIVersion: version, Resource: resource, Subresource: sub, Name: name})
	}
	if want.UID != "" {
		own("uids", "", want.UID)
	}
	for _, g := range want.Groups {
		out = append(out, authorizer.AttributesRecord{APIGroup: group, APIVersion: version, Resource: "groups", Name: g})
	}
	for _, key := range slices.Sorted(maps.Keys(want.Extra)) {
		for _, v := range want.Extra[key] {
			own("userextras", key, v)
		}
	}
	return out
}

// tooMuch is the refusal of what no narrow mode allows, whatever the roles say.
func tooMuch(asks user.Info, verb string, want *user.DefaultInfo) error {
	no := func(resource, name, format string, args ...any) error {
		return forbidden(authorizer.AttributesRecord{User: asks, Verb: verb, APIGroup: authenticationv1.GroupName, APIVersion: "v1", Resource: resource, Name: name, ResourceRequest: true}, fmt.Sprintf(format, args...))
	}
	if slices.Contains(want.Groups, "") {
		return no("groups", "", "impersonating the empty string group is not allowed")
	}
	if slices.Contains(want.Groups, user.SystemPrivilegedGroup) {
		return no("groups", user.SystemPrivilegedGroup, "impersonating the system:masters group is not allowed")
	}
	for _, key := range slices.Sorted(maps.Keys(want.Extra)) {
		values := want.Extra[key]
		switch errs := validation.IsDomainPrefixedPath(field.NewPath("extra", "key"), key); {
		case key == "":
			return no("userextras", "", "impersonating the empty string key in extra is not allowed")
		case len(errs) > 0:
			return no("userextras", "", "impersonating an invalid key in extra is not allowed: %v", errs.ToAggregate())
		case len(values) == 0:
			return no("userextras", "", "impersonating empty values in extra is not allowed")
		case slices.Contains(values, ""):
			return no("userextras", "", "impersonating the empty string value in extra is not allowed")
		}
	}
	return nil
}

// may answers the refusal if a question is answered with no.
func (c *chain) may(ctx context.Context, a authorizer.AttributesRecord) error {
	d, reason, err := c.s.authz.Authorize(ctx, a)
	if d == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		reason = strings.Trim(errors.Join(err).Error()+": "+reason, ": ")
	}
	return forbidden(a, reason)
}

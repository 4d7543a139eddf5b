package authz

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// ABAC lets who is named in a file do what stands beside the name: one policy a line, read once.
type ABAC []policy

// policy is one line: whose it is, and what it allows; "" matches nothing but "".
type policy struct {
	User            string `json:"user,omitempty"`
	Group           string `json:"group,omitempty"`
	Readonly        bool   `json:"readonly,omitempty"`
	APIGroup        string `json:"apiGroup,omitempty"`
	Resource        string `json:"resource,omitempty"`
	Namespace       string `json:"namespace,omitempty"`
	NonResourcePath string `json:"nonResourcePath,omitempty"`
}

// openABAC reads a file of policies.
func openABAC(file string) (ABAC, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading --authorization-policy-file: %w", err)
	}
	var out ABAC
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, len(data)+1)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		p, err := readPolicy(line)
		if err != nil {
			return nil, fmt.Errorf("--authorization-policy-file %s, line %d: %w", file, n, err)
		}
		out = append(out, p)
	}
	return out, lines.Err()
}

// readPolicy reads a line: a Policy of v1beta1, or the bare form from before policies had versions.
func readPolicy(line []byte) (policy, error) {
	var said struct {
		APIVersion string  `json:"apiVersion"`
		Kind       string  `json:"kind"`
		Spec       *policy `json:"spec"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return policy{}, err
	}
	p := policy{}
	switch {
	case said.APIVersion == "" && said.Kind == "":
		if err := json.Unmarshal(line, &p); err != nil {
			return policy{}, err
		}
		slog.Warn("a policy without apiVersion and kind is read as of the oldest version", "flag", "--authorization-policy-file")
		if p.Namespace == "" && p.Resource == "" {
			p.NonResourcePath = every
		}
		for _, s := range []*string{&p.Namespace, &p.Resource} {
			if *s == "" {
				*s = every
			}
		}
		p.APIGroup = every
		if p.User == "" && p.Group == "" {
			p.Group = every
		}
	case said.APIVersion == "abac.authorization.kubernetes.io/v1beta1" && said.Kind == "Policy":
		if said.Spec != nil {
			p = *said.Spec
		}
	default:
		return policy{}, fmt.Errorf("it is a %s of %q: give a Policy of abac.authorization.kubernetes.io/v1beta1", said.Kind, said.APIVersion)
	}
	if p.User == every || p.Group == every { // who is anybody has been authenticated
		p.User, p.Group = "", user.AllAuthenticated
	}
	return p, nil
}

const every = "*"

func oneOf(pattern, value string) bool { return pattern == every || pattern == value }

// of tells whether a policy is the user's.
func (p *policy) of(u user.Info) bool {
	if u == nil || p.User == "" && p.Group == "" {
		return false
	}
	return (p.User == "" || p.User == u.GetName()) && (p.Group == "" || slices.Contains(u.GetGroups(), p.Group))
}

func (p *policy) allows(a authorizer.Attributes) bool {
	if p.Readonly && !a.IsReadOnly() {
		return false
	}
	if a.IsResourceRequest() {
		return oneOf(p.Namespace, a.GetNamespace()) && oneOf(p.Resource, a.GetResource()) && oneOf(p.APIGroup, a.GetAPIGroup())
	}
	if start, ok := strings.CutSuffix(p.NonResourcePath, every); ok {
		return strings.HasPrefix(a.GetPath(), start)
	}
	return p.NonResourcePath == a.GetPath()
}

// Authorize allows what a policy allows and has no opinion about anything else.
func (l ABAC) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	for i := range l {
		if l[i].of(a.GetUser()) && l[i].allows(a) {
			return authorizer.DecisionAllow, "", nil
		}
	}
	return authorizer.DecisionNoOpinion, "No policy matched.", nil
}

// RulesFor answers what the policies let a user do in a namespace.
func (l ABAC) RulesFor(_ context.Context, u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	var out []rbacv1.PolicyRule
	for i := range l {
		p := &l[i]
		if !p.of(u) {
			continue
		}
		verbs, reads := []string{every}, []string{every}
		if p.Readonly {
			verbs, reads = []string{"get", "list", "watch"}, []string{"get"}
		}
		if p.Resource != "" && oneOf(p.Namespace, namespace) {
			out = append(out, rbacv1.PolicyRule{Verbs: verbs, APIGroups: []string{p.APIGroup}, Resources: []string{p.Resource}})
		}
		if p.NonResourcePath != "" {
			out = append(out, rbacv1.PolicyRule{Verbs: reads, NonResourceURLs: []string{p.NonResourcePath}})
		}
	}
	return out, nil
}
